"""Questions about a world, each with one answer in the whole of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import msgspec

from palaestra.envs.search.asking import Walk, draw_walk, phrase, spoken
from palaestra.envs.search.names import words
from palaestra.envs.search.pages import name_of
from palaestra.envs.search.schema import OF_KIND, RELATIONS, TO_KIND, Relation
from palaestra.envs.search.world import World

_DRAWS = 300
"""Attempts at a question of one type; then a chain is asked instead."""
_WORDS = words("zero one two three four five six seven eight nine ten eleven twelve")


class Question(msgspec.Struct, frozen=True):
    """What is asked."""

    text: str
    answers: tuple[str, ...]
    """The answer, then other ways to give it."""
    kind: str = ""
    """`chain`, `comparison`, `intersection` or `count`; of other sets what they call it."""
    hops: int = 0
    """Facts that have to be found; 0 where that is not known."""
    pages: tuple[str, ...] = ()
    """Titles of the supporting pages, in the order in which one leads to the next."""
    queries: tuple[str, ...] = ()
    """What finds each of `pages`; empty: their titles."""


Mix = tuple[tuple[str, int, int], ...]
"""Type, length of its walks, share."""

LEVELS: Mapping[str, Mix] = {
    "easy": (("chain", 1, 1),),
    "medium": (("chain", 2, 6), ("comparison", 0, 2), ("intersection", 0, 2), ("count", 1, 1)),
    "hard": (("chain", 3, 6), ("chain", 4, 4), ("comparison", 1, 3), ("intersection", 1, 4), ("count", 2, 2)),
}
"""Level -> what is asked: 1 hop, 2 hops, 3 or 4."""


def ask(world: World, level: str, count: int, seed: str) -> list[Question]:
    """`count` questions of a level, no two alike; fewer where a small world has no more."""
    rng = random.Random(f"{seed}/questions/{level}")
    order = [(kind, length) for kind, length, share in LEVELS[level] for _ in range(share)]
    asked: dict[str, Question] = {}
    misses = 0
    while len(asked) < count and misses < 20:
        kind, length = order[len(asked) % len(order)]
        question = _draw(world, rng, kind, length, asked) or _draw(world, rng, *order[0], asked)
        misses = misses + 1 if question is None else 0
        if question is not None:
            asked[question.text] = question
    return list(asked.values())


def _draw(world: World, rng: random.Random, kind: str, length: int, asked: Mapping[str, Question]) -> Question | None:
    for _ in range(_DRAWS):
        question = _TYPES[kind](world, rng, length)
        if question is not None and question.text not in asked:
            return question
    return None


def _chain(world: World, rng: random.Random, length: int) -> Question | None:
    """`Where was the author of X born?`"""
    walk = draw_walk(world, rng, length)
    if walk is None:
        return None
    relation, back = walk.hops[-1]
    called = spoken(world, rng, walk.start)
    template = relation.back.ask if back and relation.back else rng.choice(relation.ask)
    text = template.format(x=phrase(called, walk.hops[:-1]))
    return _question(world, text, walk.end, "chain", length, walk.pages(), {walk.start: called})


def _comparison(world: World, rng: random.Random, length: int) -> Question | None:
    """`Which was founded earlier, X or the employer of Y?`"""
    one, other = (draw_walk(world, rng, length, to_entity=True) for _ in range(2))
    if one is None or other is None or one.end == other.end:
        return None
    kinds = [world.entities[int(walk.end)].kind for walk in (one, other)]
    comparable = [relation for relation in OF_KIND[kinds[0]] if relation.compare]
    if kinds[0] != kinds[1] or not comparable:
        return None
    relation, larger = rng.choice(comparable), rng.random() < 0.5
    values = [_number(world, relation, walk) for walk in (one, other)]
    if values[0] == values[1]:
        return None
    called = {walk.start: spoken(world, rng, walk.start) for walk in (one, other)}
    a, b = (phrase(called[walk.start], walk.hops) for walk in (one, other))
    answer = one.end if (values[0] > values[1]) == larger else other.end
    pages = (*one.pages(), int(one.end), *other.pages(), int(other.end))
    text = relation.compare[larger].format(a=a, b=b)
    return _question(world, text, answer, "comparison", 2 * length + 2, pages, called)


def _number(world: World, relation: Relation, walk: Walk) -> int:
    """The value of its end, without its unit."""
    return int(str(world.facts[relation.name][int(walk.end)]).split()[0].replace(",", ""))


def _intersection(world: World, rng: random.Random, length: int) -> Question | None:
    """`Who was born in X and worked for the company founded by Y?`"""
    walk = draw_walk(world, rng, length, to_entity=True)
    found = None if walk is None else _single(world, rng, walk)
    if walk is None or found is None:
        return None
    subject, first, second = found
    thing, kind = name_of(world, world.facts[second.name][subject]), world.entities[subject].kind
    called = spoken(world, rng, walk.start)
    who = "Who" if kind == "person" else f"Which {kind}"
    text = f"{who} {first.clause.format(x=phrase(called, walk.hops))} and {second.clause.format(x=thing)}?"
    query = f"{name_of(world, walk.end) if walk.hops else called} {thing}"
    pages = (*walk.pages(), subject)
    return _question(world, text, subject, "intersection", length + 2, pages, {walk.start: called, subject: query})


def _single(world: World, rng: random.Random, walk: Walk) -> tuple[int, Relation, Relation] | None:
    """An entity of which two things are true as of no other; the first has the end of `walk` as its object."""
    end = int(walk.end)
    relations = [r for r in RELATIONS if r.clause and r.object == world.entities[end].kind]
    subjects = [(r, s) for r in relations for s in world.subjects[r.name].get(end, ()) if s not in walk.passed]
    if not subjects:
        return None
    first, subject = rng.choice(subjects)
    others = [r for r in OF_KIND[first.subject] if r.clause and r != first and subject in world.facts[r.name]]
    if not others:
        return None
    second = rng.choice(others)
    thing = world.facts[second.name][subject]
    both = set(world.subjects[first.name][end]) & set(world.subjects[second.name][thing])
    return (subject, first, second) if both == {subject} and thing not in walk.passed else None


def _count(world: World, rng: random.Random, length: int) -> Question | None:
    """`How many books did the teacher of X write?`"""
    walk = draw_walk(world, rng, length, to_entity=True)
    if walk is None:
        return None
    end = int(walk.end)
    counted = [r for r in TO_KIND[world.entities[end].kind] if r.back and r.back.how_many]
    numbers = [(r.back, n) for r in counted if (n := len(world.subjects[r.name].get(end, ()))) > 1]
    if not numbers:
        return None
    back, number = rng.choice(numbers)
    assert back is not None
    called = spoken(world, rng, walk.start)
    text = back.how_many.format(x=phrase(called, walk.hops))
    return _question(world, text, str(number), "count", length + 1, (*walk.pages(), end), {walk.start: called})


_TYPES: Mapping[str, Callable[[World, random.Random, int], Question | None]] = {
    "chain": _chain,
    "comparison": _comparison,
    "intersection": _intersection,
    "count": _count,
}


def _question(
    world: World,
    text: str,
    answer: int | str,
    kind: str,
    hops: int,
    pages: tuple[int, ...],
    called: Mapping[int, str],
) -> Question:
    """The record of it; `called` are pages that are searched for by something else than their title."""
    pages = tuple(dict.fromkeys(pages))
    titles = tuple(world.entities[page].name for page in pages)
    queries = tuple(called.get(page, world.entities[page].name) for page in pages)
    text = text[0].upper() + text[1:]
    return Question(text, _answers(world, answer), kind, hops, titles, queries if queries != titles else ())


def _answers(world: World, answer: int | str) -> tuple[str, ...]:
    if isinstance(answer, int):
        entity = world.entities[answer]
        return (entity.name, entity.alias) if entity.alias else (entity.name,)
    number, _, unit = answer.partition(" ")
    if unit:
        return (answer, number, f"{number} {'metres' if unit == 'm' else 'kilometres'}")
    if answer.isdigit() and int(answer) < len(_WORDS):
        return (answer, _WORDS[int(answer)])
    return (answer,)
