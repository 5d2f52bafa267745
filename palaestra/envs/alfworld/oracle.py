"""The scripted oracle: the shortest plan, by one who sees into everything."""

from __future__ import annotations

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import VERB_OF_KIND
from palaestra.envs.alfworld.world import World


def next_command(world: World) -> str:
    """The next command of a plan that solves the game from here; "look" once it is won."""
    goal = world.game.goal
    if world.won():
        return "look"
    if goal.kind == "look_at_obj_in_light":
        return _light(world)
    if world.held >= 0 and world.things[world.held] != goal.object:
        return _put_away(world)
    verb = VERB_OF_KIND.get(goal.kind)
    if world.held < 0:
        return _fetch(world, verb)
    if verb and not world.changed(verb) >> world.held & 1:
        appliance = _nearest(world, v.APPLIANCE[verb])
        if world.place != appliance:
            return f"go to {world.receptacles[appliance]}"
        return f"{verb} {world.objects[world.held]} with {world.receptacles[appliance]}"
    return _deliver(world, _target(world))


def plan(world: World, limit: int = 60) -> list[str]:
    """The whole plan from the present state, which is left as it was; empty if it needs more than `limit` commands."""
    state, commands = world.snapshot(), []
    while not world.won() and len(commands) < limit:
        commands.append(next_command(world))
        world.act(commands[-1])
    solved = world.won()
    world.restore(state)
    return commands if solved else []


def _nearest(world: World, kind: str) -> int:
    if world.place >= 0 and world.kinds[world.place] == kind:
        return world.place
    return world.kinds.index(kind)


def _target(world: World) -> int:
    """The receptacle of the goal's type that already holds most of what is wanted; the agent's own place, then the first
    one, break ties."""
    goal, best = world.game.goal, (-1, False, 0, -1)
    for i, kind in enumerate(world.kinds):
        if kind == goal.place:
            done = sum(world.things[o] == goal.object for o in world.contents[i])
            best = max(best, (done, world.place == i, -i, i))
    return best[3]


def _reach(world: World, receptacle: int) -> str | None:
    """The next command towards standing before `receptacle` with its inside accessible; `None` when it is so."""
    name = world.receptacles[receptacle]
    if world.place != receptacle:
        return f"go to {name}"
    return None if world.accessible(receptacle) else f"open {name}"


def _deliver(world: World, receptacle: int) -> str:
    return _reach(world, receptacle) or f"move {world.objects[world.held]} to {world.receptacles[receptacle]}"


def _fetch(world: World, verb: str | None) -> str:
    """Towards holding an object of the goal's type that is not yet where it belongs; the agent's own place first, then
    what needs no opening."""
    goal, target = world.game.goal, _target(world)
    best: tuple[bool, bool, int, int] | None = None
    for place, inside in enumerate(world.contents):
        if place == target and verb is None:
            continue
        for o in inside:
            if world.things[o] == goal.object:
                rank = (place != world.place, not world.accessible(place), place, o)
                best = rank if best is None or rank < best else best
    if best is None:
        return "look"
    _, _, place, o = best
    return _reach(world, place) or f"take {world.objects[o]} from {world.receptacles[place]}"


def _light(world: World) -> str:
    goal = world.game.goal
    if world.held < 0:
        return _fetch_any(world)
    if world.things[world.held] != goal.object:
        return _put_away(world)
    lamps = [(i != world.place, i, o) for i, c in enumerate(world.contents) for o in c if world.things[o] == goal.place]
    if not lamps:
        return "look"
    away, place, lamp = min(lamps)
    return f"go to {world.receptacles[place]}" if away else f"use {world.objects[lamp]}"


def _fetch_any(world: World) -> str:
    goal = world.game.goal
    found = [
        (i != world.place, not world.accessible(i), i, o)
        for i, inside in enumerate(world.contents)
        for o in inside
        if world.things[o] == goal.object
    ]
    if not found:
        return "look"
    _, _, place, o = min(found)
    return _reach(world, place) or f"take {world.objects[o]} from {world.receptacles[place]}"


def _put_away(world: World) -> str:
    """Towards an empty hand: into the first receptacle that may hold what is in it."""
    thing = world.things[world.held]
    options = [
        (i != world.place, not world.accessible(i), i) for i, kind in enumerate(world.kinds) if thing in v.FITS[kind]
    ]
    return _deliver(world, min(options)[2]) if options else "look"
