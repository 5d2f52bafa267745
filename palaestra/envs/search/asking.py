"""From one entity of a world to the next: a hop, in facts and in words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from palaestra.envs.search.schema import OF_KIND, TO_KIND, Relation
from palaestra.envs.search.world import World


class Hop(NamedTuple):
    """One relation, followed to its object or back to its subjects."""

    relation: Relation
    back: bool


class Walk(NamedTuple):
    """Hops from a named entity, each of which leads to exactly one thing."""

    start: int
    hops: tuple[Hop, ...]
    passed: tuple[int | str, ...]
    """The start, and what each hop led to."""

    @property
    def end(self) -> int | str:
        """Where it leads."""
        return self.passed[-1]

    def pages(self) -> tuple[int, ...]:
        """The entities whose pages tell of every hop, in order; their names lead from one to the next.

        Only the far end tells of a hop whose relation is not on the page of the near end.
        """
        seen: list[int] = []
        for hop, (near, far) in zip(self.hops, zip(self.passed, self.passed[1:], strict=False), strict=True):
            silent = hop.back and hop.relation.back is not None and not hop.relation.back.say
            seen += [thing for thing in ((near, far) if silent else (near,)) if isinstance(thing, int)]
        return tuple(dict.fromkeys(seen))


def follow(world: World, thing: int | str, hop: Hop) -> list[int | str]:
    """All that a hop leads to."""
    if hop.back:
        return list(world.subjects[hop.relation.name].get(thing, ()))
    if isinstance(thing, str):
        return []
    found = world.facts[hop.relation.name].get(thing)
    return [] if found is None else [found]


def hops_from(world: World, thing: int) -> Iterator[tuple[Hop, int | str]]:
    """Every hop that leads from an entity to one thing only, with that thing."""
    kind = world.entities[thing].kind
    hops = [Hop(r, False) for r in OF_KIND[kind]] + [Hop(r, True) for r in TO_KIND[kind]]
    for hop in hops:
        found = follow(world, thing, hop)
        if len(found) == 1 and (hop.back or hop.relation.ask):
            yield hop, found[0]


def draw_walk(world: World, rng: random.Random, length: int, *, to_entity: bool = False) -> Walk | None:
    """`length` hops from a random entity, never through one twice; `None` where this draw led nowhere.

    Args:
        world: where.
        rng: draws.
        length: 0 stays where it begins.
        to_entity: whether the last hop may not lead to a value.
    """
    start = rng.choice(world.of_kind[rng.choice(list(world.of_kind))])
    hops: list[Hop] = []
    passed: list[int | str] = [start]
    while len(hops) < length:
        onwards = to_entity or len(hops) < length - 1
        choices = [
            (hop, thing)
            for hop, thing in hops_from(world, passed[-1])  # type: ignore[arg-type]  # a value is only ever the last
            if thing not in passed and not (onwards and isinstance(thing, str))
        ]
        if not choices:
            return None
        hop, thing = rng.choice(choices)
        hops.append(hop)
        passed.append(thing)
    return Walk(start, tuple(hops), tuple(passed))


def phrase(name: str, hops: Sequence[Hop]) -> str:
    """`hops` from `name` as a noun phrase: `the birthplace of the author of Lost Songs of Velmar`."""
    for relation, back in hops:
        told = relation.back.phrase if back and relation.back else relation.phrase
        name = told.format(x=name)
    return name


def spoken(world: World, rng: random.Random, entity: int) -> str:
    """How a question calls an entity: by its name, or now and then by its alias."""
    known = world.entities[entity]
    return known.alias if known.alias and rng.random() < 0.3 else known.name
