"""An invented world: entities, and facts that agree with each other."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from palaestra.envs.search.names import Names, words
from palaestra.envs.search.schema import INDUSTRIES, KINDS, OCCUPATIONS, SUBJECTS

_THEMES = words("Lanterns Letters Gardens Clocks Winters Bridges Tides Voices Roads Shadows Songs Ashes")
FEWEST, MOST = 100, 200_000
"""Pages of a world."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing that has a page."""

    id: int
    """Its place in `World.entities`."""
    kind: str
    name: str
    alias: str = ""
    """Another name that its page mentions, or none."""
    pronoun: str = "it"
    """`he`, `she` or `it`."""


@dataclass(slots=True)
class World:
    """Entities, and for each relation its objects: ids of entities, or values as text."""

    entities: list[Entity] = field(default_factory=list)
    of_kind: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Kind -> ids."""
    facts: dict[str, dict[int, int | str]] = field(default_factory=lambda: defaultdict(dict))
    """Relation -> subject -> object."""
    subjects: dict[str, dict[int | str, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    """Relation -> object -> subjects, in the order in which they were told."""

    def tell(self, relation: str, subject: int, thing: int | str) -> None:
        """Add a fact."""
        self.facts[relation][subject] = thing
        self.subjects[relation].setdefault(thing, []).append(subject)

    def year(self, relation: str, subject: int) -> int:
        """A value that is a number."""
        return int(self.facts[relation][subject])


def build_world(split: str, number: int, pages: int) -> World:
    """World `number` of a split; always the same one.

    Args:
        split: decides which names it may use.
        number: which of the split's worlds.
        pages: entities that it has, about.
    """
    rng = random.Random(f"search/{split}/{number}/{pages}")
    world, names = World(), Names(split, rng)
    for kind, (share, _) in KINDS.items():
        _populate(world, names, rng, kind, max(2, round(share * pages)))
    _tell_lands(world, rng, names)
    _tell_people(world, rng)
    _tell_schools_and_museums(world, rng)
    _tell_companies(world, rng)
    _tell_books(world, rng)
    _tell_work(world, rng)
    return world


def _populate(world: World, names: Names, rng: random.Random, kind: str, count: int) -> None:
    draw = _people(names, rng, count) if kind == "person" else lambda: _THINGS[kind](world, names, rng)
    while len(world.of_kind[kind]) < count:
        name, alias, pronoun = draw()
        if not names.take(name):
            continue
        if alias and not names.take(alias):
            alias = ""
        world.of_kind[kind].append(len(world.entities))
        world.entities.append(Entity(len(world.entities), kind, name, alias, pronoun))


_Drawn = tuple[str, str, str]
"""Name, alias, pronoun."""


def _people(names: Names, rng: random.Random, count: int) -> Callable[[], _Drawn]:
    """Few given names and families, so that many people are called alike."""
    given = [(names.root(2), rng.choice(("he", "she"))) for _ in range(20 + count // 20)]
    families = [names.root(2) for _ in range(20 + count // 5)]

    def draw() -> _Drawn:
        (first, pronoun), family = rng.choice(given), rng.choice(families)
        alias = f"{names.root(1)} {family}" if rng.random() < 0.2 else ""
        return f"{first} {family}", alias, pronoun

    return draw


def _land(world: World, names: Names, rng: random.Random) -> _Drawn:
    root = names.root(2)
    return rng.choice((root + "ia", f"Republic of {root}", f"Kingdom of {root}")), "", "it"


def _mountain(world: World, names: Names, rng: random.Random) -> _Drawn:
    root = names.root(2)
    return rng.choice((f"Mount {root}", f"{root} Peak", f"{root} Horn")), "", "it"


def _river(world: World, names: Names, rng: random.Random) -> _Drawn:
    root = names.root(2)
    return rng.choice((f"River {root}", f"{root} River", f"{root} Water")), root, "it"


def _town(world: World, names: Names, rng: random.Random) -> _Drawn:
    """One in four is called after another: Upper Velmar beside Velmar."""
    towns = world.of_kind["town"]
    if towns and rng.random() < 0.25:
        other = world.entities[rng.choice(towns)].name
        if " " not in other:
            return f"{rng.choice(('Upper', 'Lower', 'New', 'Old', 'Port', 'Little'))} {other}", "", "it"
    return names.root(2), names.root(2) if rng.random() < 0.2 else "", "it"


def _after(world: World, names: Names, rng: random.Random) -> str:
    """What schools, museums and companies are called after: a town, or nobody that one knows."""
    return world.entities[rng.choice(world.of_kind["town"])].name if rng.random() < 0.5 else names.root(2)


def _school(world: World, names: Names, rng: random.Random) -> _Drawn:
    after = _after(world, names, rng)
    return rng.choice((f"University of {after}", f"{after} Academy", f"{after} College")), "", "it"


def _museum(world: World, names: Names, rng: random.Random) -> _Drawn:
    after = _after(world, names, rng)
    return f"{after} Museum of {rng.choice(SUBJECTS).capitalize()}", "", "it"


def _company(world: World, names: Names, rng: random.Random) -> _Drawn:
    what = rng.choice(("Works", "Mills", "Brothers", "and Sons", "Manufactory", "Company", "Yard"))
    return f"{_after(world, names, rng)} {what}", names.root(2) if rng.random() < 0.2 else "", "it"


def _book(world: World, names: Names, rng: random.Random) -> _Drawn:
    """Like titles: The Lantern of Velmar, The Letters of Velmar."""
    books, after = world.of_kind["book"], names.root(2)
    if books and rng.random() < 0.3:
        after = world.entities[rng.choice(books)].name.rpartition(" ")[2]
    what = rng.choice(_THEMES)
    return f"{rng.choice(('The', 'Seven', 'Lost', 'Silent'))} {what} of {after}", "", "it"


_THINGS: dict[str, Callable[[World, Names, random.Random], _Drawn]] = {
    "country": _land,
    "mountain": _mountain,
    "river": _river,
    "town": _town,
    "school": _school,
    "museum": _museum,
    "company": _company,
    "book": _book,
}


def _tell_lands(world: World, rng: random.Random, names: Names) -> None:
    kinds = world.of_kind
    for mountain in kinds["mountain"]:
        world.tell("height", mountain, f"{rng.randint(700, 5900)} m")
        world.tell("mountain_country", mountain, rng.choice(kinds["country"]))
    for river in kinds["river"]:
        world.tell("source", river, rng.choice(kinds["mountain"]))
        world.tell("length", river, f"{rng.randint(40, 2400)} km")
    for place, town in enumerate(kinds["town"]):
        countries = kinds["country"]
        world.tell("country", town, countries[place] if place < len(countries) else rng.choice(countries))
        if rng.random() < 0.7:
            world.tell("river", town, rng.choice(kinds["river"]))
        world.tell("town_founded", town, str(rng.randint(900, 1700)))
        world.tell("population", town, f"{rng.randint(2_000, 900_000):,}")
    for country in kinds["country"]:
        world.tell("capital", country, rng.choice(world.subjects["country"][country]))
        world.tell("currency", country, names.root(1).lower())
        world.tell("independent", country, str(rng.randint(1705, 1800)))


def _tell_people(world: World, rng: random.Random) -> None:
    """In the order of birth, so that teachers are older than pupils."""
    people = world.of_kind["person"]
    years = sorted(rng.randint(1780, 1960) for _ in people)
    for place, (person, year) in enumerate(zip(people, years, strict=True)):
        world.tell("born", person, str(year))
        world.tell("birthplace", person, rng.choice(world.of_kind["town"]))
        world.tell("occupation", person, rng.choice(OCCUPATIONS))
        teacher = people[rng.randrange(place)] if place and rng.random() < 0.4 else None
        if teacher is not None and 15 <= year - world.year("born", teacher) <= 50:
            world.tell("teacher", person, teacher)
    for one, other in zip(people[::2], people[1::2], strict=False):
        if rng.random() < 0.4:
            world.tell("spouse", one, other)
            world.tell("spouse", other, one)


def _tell_schools_and_museums(world: World, rng: random.Random) -> None:
    for school in world.of_kind["school"]:
        world.tell("school_town", school, rng.choice(world.of_kind["town"]))
        world.tell("school_founded", school, str(rng.randint(1700, 1790)))
        world.tell("rector", school, rng.choice(world.of_kind["person"]))
    for museum in world.of_kind["museum"]:
        architect = rng.choice(world.of_kind["person"])
        world.tell("museum_town", museum, rng.choice(world.of_kind["town"]))
        world.tell("architect", museum, architect)
        world.tell("opened", museum, str(world.year("born", architect) + rng.randint(25, 60)))


def _tell_companies(world: World, rng: random.Random) -> None:
    companies = world.of_kind["company"]
    for company in companies:
        founder = rng.choice(world.of_kind["person"])
        world.tell("founder", company, founder)
        world.tell("company_founded", company, str(world.year("born", founder) + rng.randint(20, 55)))
        world.tell("seat", company, rng.choice(world.of_kind["town"]))
        world.tell("industry", company, rng.choice(INDUSTRIES))
        founded = world.year("company_founded", company)
        if rng.random() < 0.7 and (able := _born(world, founded - 30, founded + 60)):
            world.tell("chief", company, rng.choice(able))
    in_order = sorted(companies, key=lambda company: world.year("company_founded", company))
    for older, younger in zip(in_order[::3], in_order[2::3], strict=False):
        if world.year("company_founded", older) < world.year("company_founded", younger):
            world.tell("successor", older, younger)


def _tell_books(world: World, rng: random.Random) -> None:
    """A third of all people write, so that some have written several books."""
    people = world.of_kind["person"]
    authors: Sequence[int] = people[::3] or people
    for book in world.of_kind["book"]:
        author = rng.choice(authors)
        world.tell("author", book, author)
        world.tell("written", book, str(world.year("born", author) + rng.randint(20, 60)))
        world.tell("subject", book, rng.choice(SUBJECTS))
        world.tell("setting", book, rng.choice(world.of_kind["town"]))


def _born(world: World, first: int, last: int) -> Sequence[int]:
    """People born in these years."""
    people, year = world.of_kind["person"], partial(world.year, "born")
    return people[bisect_left(people, first, key=year) : bisect_right(people, last, key=year)]


def _tell_work(world: World, rng: random.Random) -> None:
    """Nobody works for a company that is founded late in his life."""
    companies = sorted(world.of_kind["company"], key=lambda company: world.year("company_founded", company))
    years = [world.year("company_founded", company) for company in companies]
    for person in world.of_kind["person"]:
        there = bisect_right(years, world.year("born", person) + 40)
        if there and rng.random() < 0.6:
            world.tell("employer", person, companies[rng.randrange(there)])
        if rng.random() < 0.6:
            world.tell("studied", person, rng.choice(world.of_kind["school"]))
