"""The scripted oracle: a shortest plan, by one who sees into everything.

Every receptacle is one `go to` away from every other, so a plan is a handful of *visits*: where to take what, where to
change it, where to put it. The oracle lists all itineraries of visits that can be shortest, and takes the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import NamedTuple

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import VERB_OF_KIND
from palaestra.envs.alfworld.world import World


class Visit(NamedTuple):
    """One thing done at one receptacle."""

    place: int
    verb: str
    """`take`, `move`, `heat`, `cool`, `clean`, `use`; empty just to stand there."""
    item: int = -1


Itinerary = list[Visit]


def next_command(world: World) -> str:
    """The next command of a shortest plan from here; "look" once it is won, or where nothing helps."""
    return next(iter(plan(world)), "look")


def plan(world: World) -> list[str]:
    """A shortest plan from the present state; empty where the game is won, and where it cannot be."""
    if world.won():
        return []
    held = world.held
    starts: list[Itinerary] = [[]]
    if held >= 0 and world.things[held] != world.game.goal.object:
        held, starts = -1, list(_drops(world))
    itineraries = (start + rest for rest in _itineraries(world, held) for start in starts)
    best = min(itineraries, key=lambda visits: _cost(world, visits), default=[])
    return _commands(world, best)


def _itineraries(world: World, held: int) -> Iterator[Itinerary]:
    """The ways to win with `held`, an object of the goal's type or -1, in the hand."""
    if world.game.goal.kind == "look_at_obj_in_light":
        return _light_itineraries(world, held)
    if world.game.goal.object not in v.FITS[world.game.goal.place]:
        return iter(())
    if world.game.goal.kind == "pick_two_obj_and_place":
        return _two_itineraries(world, held)
    return _one_itineraries(world, held)


def _one_itineraries(world: World, held: int) -> Iterator[Itinerary]:
    """Fetch, change if the goal asks for it, deliver."""
    goal = world.game.goal
    verb = VERB_OF_KIND.get(goal.kind)
    changed = world.changed(verb)
    if verb and goal.object not in v.AFFORDS[verb]:
        return
    targets = _representatives(world, [goal.place])
    for fetch, item in _fetches(world, held):
        changes = [[]] if verb is None or changed >> item & 1 else [
            [Visit(place, verb, item)] for place in _representatives(world, [v.APPLIANCE[verb]])
        ]  # fmt: skip
        for change in changes:
            for target in targets:
                yield [*fetch, *change, Visit(target, "move", item)]


def _two_itineraries(world: World, held: int) -> Iterator[Itinerary]:
    """Choose the receptacle, then bring what it still lacks, in every order; what is held comes first."""
    goal = world.game.goal
    for target in _representatives(world, [goal.place]):
        inside = world.contents[target]
        lacking = 2 - sum(world.things[o] == goal.object for o in inside)
        carried = [] if held < 0 else [Visit(target, "move", held)]
        others = [(place, o) for place, o in _wanted(world) if place != target]
        for chosen in permutations(others, lacking - len(carried)):
            yield carried + [visit for s, o in chosen for visit in (Visit(s, "take", o), Visit(target, "move", o))]


def _light_itineraries(world: World, held: int) -> Iterator[Itinerary]:
    """Fetch, then stand by a lamp that is, or is being, switched on."""
    goal = world.game.goal
    lamps = [
        Visit(place, "" if world.toggled >> o & 1 else "use", o)
        for place, inside in enumerate(world.contents)
        for o in inside
        if world.things[o] == goal.place
    ]
    for fetch, _ in _fetches(world, held):
        for lamp in lamps:
            yield [*fetch, lamp]


def _fetches(world: World, held: int) -> list[tuple[Itinerary, int]]:
    """The ways to have an object of the goal's type in the hand, with the object."""
    if held >= 0:
        return [([], held)]
    return [([Visit(place, "take", o)], o) for place, o in _wanted(world)]


def _drops(world: World) -> Iterator[Itinerary]:
    """The ways to empty the hand of something that is not wanted."""
    thing = world.things[world.held]
    for place in _representatives(world, [kind for kind, fitting in v.FITS.items() if thing in fitting]):
        yield [Visit(place, "move", world.held)]


def _wanted(world: World) -> list[tuple[int, int]]:
    """(receptacle, object) of everything of the goal's type that can be taken."""
    wanted = world.game.goal.object
    if wanted in v.LAMPS:
        return []
    return [(place, o) for place, inside in enumerate(world.contents) for o in inside if world.things[o] == wanted]


def _representatives(world: World, kinds: Iterable[str]) -> list[int]:
    """Receptacles of these types, but only one of those that are alike for every plan.

    Alike are two of the same role (the goal's place, an appliance, neither), both shut or both not, that hold nothing
    wanted and where the agent is not.
    """
    goal, kinds = world.game.goal, frozenset(kinds)
    roles = (goal.place, *v.APPLIANCE.values())
    chosen: dict[tuple[str, bool] | int, int] = {}
    for i, kind in enumerate(world.kinds):
        if kind in kinds:
            special = i == world.place or any(world.things[o] in (goal.object, goal.place) for o in world.contents[i])
            chosen.setdefault(i if special else (kind if kind in roles else "", world.accessible(i)), i)
    return list(chosen.values())


def _cost(world: World, visits: Itinerary) -> int:
    """Commands that these visits take."""
    here, opened, cost = world.place, world.opened, 0
    for place, verb, _ in visits:
        cost += (place != here) + (verb != "")
        if verb in ("take", "move") and world.openable[place] and not opened >> place & 1:
            opened |= 1 << place
            cost += 1
        here = place
    return cost


def _commands(world: World, visits: Itinerary) -> list[str]:
    """The visits in words."""
    here, opened, commands = world.place, world.opened, []
    for place, verb, item in visits:
        name = world.receptacles[place]
        if place != here:
            commands.append(f"go to {name}")
        if verb in ("take", "move") and world.openable[place] and not opened >> place & 1:
            opened |= 1 << place
            commands.append(f"open {name}")
        if verb:
            joint = _JOINTS[verb]
            commands.append(f"{verb} {world.objects[item]}{f' {joint} {name}' if joint else ''}")
        here = place
    return commands


_JOINTS = {"take": "from", "move": "to", "heat": "with", "cool": "with", "clean": "with", "use": ""}
