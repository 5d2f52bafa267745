"""Our games as problems of the original `alfworld` package: PDDL from a game, with *its* tables of facts."""

from __future__ import annotations

from pathlib import Path

import alfworld
from alfworld.gen import constants
from alfworld.gen.goal_library import gdict

from palaestra.envs.alfworld.game import Game

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


def names(game: Game) -> dict[str, str]:
    """The identifier of each thing in the problem -> its name in the game, "mug 2"."""
    things = [(_receptacle_id(i, kind), kind, number) for i, (kind, number) in enumerate(game.receptacles)]
    things += [(_object_id(i, kind), kind, number) for i, (kind, number, _) in enumerate(game.objects)]
    return {identifier.lower(): f"{kind.lower()} {number}" for identifier, kind, number in things}


def game_data(game: Game) -> dict[str, str]:
    """What `textworld.envs.PddlEnv.load` takes."""
    goal = game.goal
    theirs = gdict[goal.kind]
    wanted = {"obj": goal.object, "recep": goal.place, "toggle": goal.place}
    sentence = theirs["templates"][goal.phrasing].format(**{key: name.lower() for key, name in wanted.items()})
    return {
        "pddl_domain": (DATA / "alfred.pddl").read_text(),
        "grammar": (DATA / "alfred.twl2").read_text().replace("UNKNOWN GOAL", sentence),
        "pddl_problem": _problem(game, theirs["pddl"].format(**wanted).replace("#", "-")),
    }


def _receptacle_id(index: int, kind: str) -> str:
    """As the original writes them: "TYPE_bar_..."; basins are parts of another thing."""
    if kind.endswith("Basin"):
        return f"{kind.removesuffix('Basin')}_bar_r{index:03}_bar_{kind}"
    return f"{kind}_bar_r{index:03}"


def _object_id(index: int, kind: str) -> str:
    return f"{kind}_bar_o{index:03}"


def _problem(game: Game, goal: str) -> str:
    receptacles = [(_receptacle_id(i, kind), kind, f"loc{i}") for i, (kind, _) in enumerate(game.receptacles)]
    objects = [(_object_id(i, kind), kind, *receptacles[place][::2]) for i, (kind, _, place) in enumerate(game.objects)]
    rtypes, otypes = _types(game)
    declared = [
        "agent1 - agent",
        "loc_start - location",
        *(f"{loc} - location" for _, _, loc in receptacles),
        *(f"{name} - receptacle" for name, _, _ in receptacles),
        *(f"{name} - object" for name, *_ in objects),
        *(f"{kind}Type - rtype" for kind in rtypes),
        *(f"{kind}Type - otype" for kind in otypes),
    ]
    facts = ["(atLocation agent1 loc_start)", "(= (total-cost) 0)"]
    for receptacle in receptacles:
        facts += _receptacle_facts(*receptacle)
    for kind in rtypes:
        fitting = constants.VAL_RECEPTACLE_OBJECTS[kind]
        facts += [f"(canContain {kind}Type {thing}Type)" for thing in otypes if thing in fitting]
    for thing in objects:
        facts += _object_facts(*thing)
    lines = ["(define (problem game)", "(:domain alfred)", "(:objects", *declared, ")", "(:init", *facts, ")"]
    return "\n".join([*lines, goal.strip()])


def _types(game: Game) -> tuple[list[str], list[str]]:
    """Types of receptacles, and those of everything else."""
    wanted = [game.goal.object, game.goal.place]
    rtypes = dict.fromkeys([*(kind for kind, _ in game.receptacles), *NAMED_BY_THE_DOMAIN, game.goal.place])
    otypes = dict.fromkeys([*(kind for kind, _, _ in game.objects), *KNIVES, *wanted])
    places = [kind for kind in rtypes if kind in constants.VAL_RECEPTACLE_OBJECTS]
    return places, [kind for kind in otypes if kind not in places]


def _receptacle_facts(name: str, kind: str, loc: str) -> list[str]:
    facts = [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {loc})"]
    return [*facts, f"(openable {name})"] if kind in constants.OPENABLE_CLASS_SET else facts


def _object_facts(name: str, kind: str, place: str, loc: str) -> list[str]:
    facts = [f"(objectType {name} {kind}Type)", f"(inReceptacle {name} {place})", f"(objectAtLocation {name} {loc})"]
    if kind not in constants.VAL_ACTION_OBJECTS["Toggleable"]:
        facts.append(f"(pickupable {name})")
    return facts + [
        f"({fact} {name})" for fact, key in AFFORDANCES.items() if kind in constants.VAL_ACTION_OBJECTS[key]
    ]
