"""A demonstrator that sees no more than the agent: it searches, remembers what it saw, and acts on it.

It makes the recorded play from which `palaestra-tiny` learned to read and to act; unlike the oracle it shows how to
look for things. `noise` makes it a worse one.
"""

from __future__ import annotations

import random

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import VERB_OF_KIND
from palaestra.envs.alfworld.world import World


class Explorer:
    """Plays `world` by what the texts so far have shown, drawing ties and slips from `rng`."""

    def __init__(self, world: World, rng: random.Random, noise: float = 0.0) -> None:
        self.world, self.rng, self.noise = world, rng, noise
        self.seen: set[int] = set()
        """Receptacles whose inside has been seen."""

    def command(self) -> str:
        """The next command; a random admissible one with probability `noise`."""
        world = self.world
        if world.place >= 0 and world.accessible(world.place):
            self.seen.add(world.place)
        if self.rng.random() < self.noise:
            return self.rng.choice(world.admissible())
        return self._purposeful()

    def _purposeful(self) -> str:
        world, goal = self.world, self.world.game.goal
        verb = VERB_OF_KIND.get(goal.kind)
        if world.held >= 0 and world.things[world.held] != goal.object:
            return self._put_away()
        if goal.kind == "look_at_obj_in_light":
            return self._search(goal.object) if world.held < 0 else self._light(goal.place)
        if world.held < 0:
            return self._search(goal.object, avoid="" if verb else goal.place)
        if verb and not world.changed(verb) >> world.held & 1:
            return self._change(verb)
        return self._deliver([i for i, kind in enumerate(world.kinds) if kind == goal.place])

    def _known(self, kind: str) -> list[tuple[int, int]]:
        """(receptacle, object) of every thing of this type that has been seen where it is."""
        contents = self.world.contents
        return [(i, o) for i in sorted(self.seen) for o in contents[i] if self.world.things[o] == kind]

    def _reach(self, receptacle: int) -> str | None:
        world, name = self.world, self.world.receptacles[receptacle]
        if world.place != receptacle:
            return f"go to {name}"
        return None if world.accessible(receptacle) else f"open {name}"

    def _search(self, kind: str, avoid: str = "") -> str:
        world = self.world
        known = [(i, o) for i, o in self._known(kind) if world.kinds[i] != avoid or not self._delivering(i)]
        if known:
            place, o = min(known, key=lambda pair: (pair[0] != world.place, pair))
            return self._reach(place) or f"take {world.objects[o]} from {world.receptacles[place]}"
        return self._look_further(kind)

    def _delivering(self, receptacle: int) -> bool:
        """Whether this receptacle is where delivered objects are being gathered."""
        return receptacle == self._gathering()

    def _gathering(self) -> int:
        """The receptacle of the goal's type with most of the goal's objects seen in it; -1 if none has any."""
        world, goal = self.world, self.world.game.goal
        counts = [
            (sum(world.things[o] == goal.object for o in world.contents[i]), -i)
            for i in self.seen
            if world.kinds[i] == goal.place
        ]
        best = max(counts, default=(0, 1))
        return -best[1] if best[0] else -1

    def _look_further(self, kind: str) -> str:
        """To a receptacle not looked into yet, one that may hold `kind` rather than another."""
        world = self.world
        if world.place >= 0 and world.place not in self.seen:
            return f"open {world.receptacles[world.place]}"
        unseen = [i for i in range(len(world.kinds)) if i not in self.seen]
        likely = [i for i in unseen if kind in v.LAMPS or kind in v.FITS[world.kinds[i]]]
        options = likely or unseen or [i for i in range(len(world.kinds)) if i != world.place]
        return f"go to {world.receptacles[self.rng.choice(options)]}" if options else "look"

    def _light(self, lamp: str) -> str:
        known = self._known(lamp)
        if not known:
            return self._look_further(lamp)
        place, o = min(known, key=lambda pair: (pair[0] != self.world.place, pair))
        if self.world.place != place:
            return f"go to {self.world.receptacles[place]}"
        return f"use {self.world.objects[o]}"

    def _change(self, verb: str) -> str:
        world = self.world
        if world.place >= 0 and world.kinds[world.place] == v.APPLIANCE[verb]:
            return f"{verb} {world.objects[world.held]} with {world.receptacles[world.place]}"
        places = [i for i, kind in enumerate(world.kinds) if kind == v.APPLIANCE[verb]]
        return f"go to {world.receptacles[self.rng.choice(places)]}"

    def _deliver(self, places: list[int]) -> str:
        world = self.world
        gathering = self._gathering()
        place = gathering if gathering >= 0 else world.place if world.place in places else self.rng.choice(places)
        return self._reach(place) or f"move {world.objects[world.held]} to {world.receptacles[place]}"

    def _put_away(self) -> str:
        world = self.world
        thing = world.things[world.held]
        places = [i for i, kind in enumerate(world.kinds) if thing in v.FITS[kind]]
        here = world.place if world.place in places else self.rng.choice(places)
        return self._reach(here) or f"move {world.objects[world.held]} to {world.receptacles[here]}"
