"""An encyclopaedia of a world: a page of natural sentences for every entity."""

from __future__ import annotations

import random
from collections.abc import Iterator

from palaestra.envs.search.corpus import Page
from palaestra.envs.search.schema import KINDS, OF_KIND, TO_KIND
from palaestra.envs.search.world import Entity, World

_POSSESSIVE = {"he": "His", "she": "Her", "it": "Its"}
_FILLERS = {
    "person": (
        "{s} kept a diary that has been lost.",
        "Little is known of the early years.",
        "Several letters survive in private hands.",
        "Contemporaries praised a dry sense of humour.",
    ),
    "town": (
        "The market is held on Thursdays.",
        "A fire destroyed the old quarter, which was rebuilt in brick.",
        "The town hall has a clock with one hand.",
    ),
    "book": (
        "The first edition had a green binding.",
        "Critics were divided over the ending.",
        "{s} has been translated several times.",
    ),
    "company": (
        "{s} survived two wars and a flood.",
        "Its sign can still be seen over the old gate.",
        "The workers had a brass band of their own.",
    ),
}
_OTHER_FILLERS = ("Postcards show it in every season.", "It appears on a stamp.", "Legends surround its name.")


def write_pages(world: World, seed: str) -> list[Page]:
    """A page for every entity, in the order of the world's."""
    rng = random.Random(f"{seed}/pages")
    alike = _alike(world)
    return [_page(world, entity, rng, alike) for entity in world.entities]


def page_id(entity: Entity) -> str:
    """The id of an entity's page."""
    return f"p{entity.id}"


def _page(world: World, entity: Entity, rng: random.Random, alike: dict[str, list[int]]) -> Page:
    told = [*_facts(world, entity, rng), *_backward(world, entity)]
    other = _namesake(world, entity, rng, alike)
    if other:
        told.append(("{s} is not to be confused with {o}.", [other]))
    told += [(filler, []) for filler in rng.sample(_FILLERS.get(entity.kind, _OTHER_FILLERS), rng.randint(0, 2))]
    rng.shuffle(told)
    opening, values = _opening(world, entity)
    text, used = [opening], values
    for place, (sentence, objects) in enumerate(told):
        text.append(_told(entity, sentence, objects, rng, named=place % 4 == 3))
        used += objects
    aliases = (entity.alias,) if entity.alias else ()
    return Page(page_id(entity), entity.name, " ".join(text), aliases, tuple(dict.fromkeys(used)))


def _opening(world: World, entity: Entity) -> tuple[str, list[str]]:
    known = f", also known as {entity.alias}," if entity.alias else ""
    if entity.kind != "person":
        return f"{entity.name}{known} is {KINDS[entity.kind][1]}.", []
    occupation = str(world.facts["occupation"][entity.id])
    article = "an" if occupation[0] in "aeio" else "a"
    return f"{entity.name}{known} was {article} {occupation}.", [occupation]


def _facts(world: World, entity: Entity, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    for relation in OF_KIND[entity.kind]:
        thing = world.facts[relation.name].get(entity.id)
        if thing is not None and relation.say:
            yield rng.choice(relation.say), [name_of(world, thing)]


def _backward(world: World, entity: Entity) -> Iterator[tuple[str, list[str]]]:
    for relation in TO_KIND[entity.kind]:
        subjects = world.subjects[relation.name].get(entity.id)
        if subjects and relation.back and relation.back.say:
            yield relation.back.say, [name_of(world, subject) for subject in subjects]


def _told(entity: Entity, sentence: str, objects: list[str], rng: random.Random, named: bool) -> str:
    subject = entity.name if named or rng.random() < 0.2 else entity.pronoun
    listed = objects[0] if len(objects) == 1 else f"{', '.join(objects[:-1])} and {objects[-1]}" if objects else ""
    text = sentence.format(s=subject, p=_POSSESSIVE[entity.pronoun], o=listed)
    return text[0].upper() + text[1:]


def name_of(world: World, thing: int | str) -> str:
    """The name of an entity, or a value as it is."""
    return thing if isinstance(thing, str) else world.entities[thing].name


def _alike(world: World) -> dict[str, list[int]]:
    """Last word of a name -> who has it."""
    alike: dict[str, list[int]] = {}
    for entity in world.entities:
        alike.setdefault(entity.name.rpartition(" ")[2], []).append(entity.id)
    return alike


def _namesake(world: World, entity: Entity, rng: random.Random, alike: dict[str, list[int]]) -> str:
    others = alike[entity.name.rpartition(" ")[2]]
    if len(others) < 2 or rng.random() < 0.5:
        return ""
    other = rng.choice(others)
    return world.entities[other].name if other != entity.id else ""
