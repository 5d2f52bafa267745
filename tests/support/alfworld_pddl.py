"""Our games as problems of the original `alfworld` package: PDDL from a game's JSON, with *its* tables of facts.

Runs in the interpreter that has `alfworld`; needs nothing of Palaestra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import alfworld
from alfworld.gen import constants
from alfworld.gen.goal_library import gdict

DATA = Path(alfworld.__file__).parent / "data"
NAMED_BY_THE_DOMAIN = ("SinkBasin", "Microwave", "Fridge")
KNIVES = ("Knife", "ButterKnife")
AFFORDANCES = {
    "heatable": "Heatable",
    "coolable": "Coolable",
    "cleanable": "Cleanable",
    "sliceable": "Sliceable",
    "toggleable": "Toggleable",
}


def receptacle_id(index: int, kind: str) -> str:
    """An identifier that the original demangles to the receptacle's name; basins are parts of another thing."""
    if kind.endswith("Basin"):
        return f"{kind.removesuffix('Basin')}_bar_r{index:03}_bar_{kind}"
    return f"{kind}_bar_r{index:03}"


def object_id(index: int, kind: str) -> str:
    return f"{kind}_bar_o{index:03}"


def index_of(identifier: str) -> str | None:
    """`r003` or `o012` of an identifier of ours, else None."""
    parts = identifier.split("_bar_")
    return parts[1] if len(parts) > 1 else None


def game_data(game: dict[str, Any]) -> dict[str, str]:
    """What `PddlEnv.load` takes."""
    goal = game["goal"]
    grammar = (DATA / "alfred.twl2").read_text()
    names = {"obj": goal["object"], "recep": goal["place"], "toggle": goal["place"]}
    sentence = gdict[goal["kind"]]["templates"][goal["phrasing"]]
    sentence = sentence.format(**{key: name.lower() for key, name in names.items()})
    return {
        "pddl_domain": (DATA / "alfred.pddl").read_text(),
        "grammar": grammar.replace("UNKNOWN GOAL", sentence),
        "pddl_problem": _problem(game, gdict[goal["kind"]]["pddl"].format(**names).replace("#", "-")),
    }


def _problem(game: dict[str, Any], goal: str) -> str:
    receptacles = [(receptacle_id(i, kind), kind, f"loc{i}") for i, (kind, _) in enumerate(game["receptacles"])]
    objects = [(object_id(i, kind), kind, place) for i, (kind, _, place) in enumerate(game["objects"])]
    wanted = [game["goal"]["object"], game["goal"]["place"]]
    rtypes = dict.fromkeys([kind for _, kind, _ in receptacles] + [*NAMED_BY_THE_DOMAIN, wanted[1]])
    otypes = dict.fromkeys([kind for _, kind, _ in objects] + [*KNIVES, *wanted])
    rtypes = [kind for kind in rtypes if kind in constants.VAL_RECEPTACLE_OBJECTS]
    otypes = [kind for kind in otypes if kind not in rtypes]
    declared = [
        "agent1 - agent",
        "loc_start - location",
        *(f"{loc} - location" for _, _, loc in receptacles),
        *(f"{name} - receptacle" for name, _, _ in receptacles),
        *(f"{name} - object" for name, _, _ in objects),
        *(f"{kind}Type - rtype" for kind in rtypes),
        *(f"{kind}Type - otype" for kind in otypes),
    ]
    facts = ["(atLocation agent1 loc_start)", "(= (total-cost) 0)"]
    for name, kind, loc in receptacles:
        facts += [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {loc})"]
        if kind in constants.OPENABLE_CLASS_SET:
            facts.append(f"(openable {name})")
    for kind in rtypes:
        fitting = constants.VAL_RECEPTACLE_OBJECTS[kind]
        facts += [f"(canContain {kind}Type {thing}Type)" for thing in otypes if thing in fitting]
    for name, kind, place in objects:
        facts += [f"(objectType {name} {kind}Type)", f"(inReceptacle {name} {receptacles[place][0]})"]
        facts.append(f"(objectAtLocation {name} {receptacles[place][2]})")
        if kind not in constants.VAL_ACTION_OBJECTS["Toggleable"]:
            facts.append(f"(pickupable {name})")
        facts += [f"({fact} {name})" for fact, key in AFFORDANCES.items() if kind in constants.VAL_ACTION_OBJECTS[key]]
    return (
        "(define (problem game)\n(:domain alfred)\n(:objects\n" + "\n".join(declared) + "\n)\n(:init\n"
        "" + "\n".join(facts) + "\n)\n" + goal.strip()
    )
