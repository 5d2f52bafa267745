"""Invented worlds: consistent, told in full, and never of two splits."""

from __future__ import annotations

import re
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.answers import normalised
from palaestra.envs.hashing import digest
from palaestra.envs.search.pages import name_of, write_pages
from palaestra.envs.search.schema import RELATIONS
from palaestra.envs.search.world import build_world

SPLITS = ("train", "validation", "test")


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, 10_000), st.sampled_from([100, 250, 600]))
def test_facts_agree_with_each_other(split: str, number: int, pages: int) -> None:
    world = build_world(split, number, pages)
    facts, born = world.facts, lambda person: world.year("born", person)
    assert abs(len(world.entities) - pages) <= 5
    assert all(facts["country"][town] == country for country, town in facts["capital"].items())
    assert all(born(teacher) < born(pupil) for pupil, teacher in facts["teacher"].items())
    assert all(born(author) < world.year("written", book) for book, author in facts["author"].items())
    assert all(born(who) < world.year("company_founded", what) for what, who in facts["founder"].items())
    assert all(born(who) < world.year("opened", what) for what, who in facts["architect"].items())
    assert all(facts["spouse"][other] == one for one, other in facts["spouse"].items())
    year = "company_founded"
    assert all(world.year(year, one) < world.year(year, next) for one, next in facts["successor"].items())
    assert all(world.year(year, what) <= born(who) + 40 for who, what in facts["employer"].items())


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
def test_no_two_things_are_called_alike(split: str, number: int) -> None:
    world = build_world(split, number, 400)
    names = [name for entity in world.entities for name in (entity.name, entity.alias) if name]
    assert len({tuple(normalised(name)) for name in names}) == len(names)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
def test_every_fact_is_on_a_page(split: str, number: int) -> None:
    world = build_world(split, number, 300)
    pages = write_pages(world, "test")
    for relation in RELATIONS:
        for subject, thing in world.facts[relation.name].items():
            page = pages[subject]
            assert name_of(world, thing) in page.text
            assert page.mentions is not None
            assert name_of(world, thing) in page.mentions
            if relation.back and relation.back.say and isinstance(thing, int):
                assert world.entities[subject].name in pages[thing].text
    assert all(page.text.startswith(page.title) for page in pages)
    assert all(name in page.text for page in pages for name in (*page.aliases, *(page.mentions or ())))


ORDINARY = """
    Republic Kingdom Mount Peak Horn River Water Upper Lower New Old Port Little University Academy College Museum Works
    Mills Brothers Sons Manufactory Company Yard The Seven Lost Silent Lanterns Letters Gardens Clocks Winters Bridges
    Tides Voices Roads Shadows Songs Ashes Bees Comets Dyes Ferries Fossils Glaciers Maps Moths
"""


def roots(split: str) -> set[str]:
    """The invented words of some worlds' names."""
    entities = [entity for number in range(2) for entity in build_world(split, number, 500).entities]
    words = {word for e in entities for name in (e.name, e.alias) for word in re.findall(r"[A-Z][a-z]+", name)}
    return {word.removesuffix("ia") for word in words} - set(ORDINARY.split())


def test_splits_share_no_name_but_ordinary_words() -> None:
    train, validation, test = map(roots, SPLITS)
    assert min(map(len, (train, validation, test))) > 500
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_a_world_is_the_same_in_every_process() -> None:
    code = (
        "from palaestra.envs.hashing import digest; from palaestra.envs.search.pages import write_pages;"
        "from palaestra.envs.search.world import build_world;"
        "print(digest([p.text for p in write_pages(build_world('test', 1, 200), 's')]))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == digest([page.text for page in write_pages(build_world("test", 1, 200), "s")])


def test_names_are_alike_on_purpose() -> None:
    world = build_world("test", 0, 500)
    families = [world.entities[person].name.split()[1] for person in world.of_kind["person"]]
    assert len(set(families)) < len(families) / 2
    towns = {world.entities[town].name for town in world.of_kind["town"]}
    assert sum(name.split()[-1] in towns for name in towns if " " in name) >= 5
    texts = [page.text for page in write_pages(world, "test")]
    assert sum("not to be confused" in text for text in texts) > 50
