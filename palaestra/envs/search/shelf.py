"""The shelf: corpora and questions that all instances of a process share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from palaestra.envs.params import whole
from palaestra.envs.search.corpus import Corpus
from palaestra.envs.search.kept import Kept
from palaestra.envs.search.pages import write_pages
from palaestra.envs.search.questions import LEVELS, Question, ask
from palaestra.envs.search.world import FEWEST, MOST, World, build_world
from palaestra.errors import DataError, UnknownNameError

PAGES = 500
"""Of a world, where nobody says otherwise."""
WORLDS = {"train": 8, "validation": 2, "test": 2}
"""Split -> its worlds."""
QUESTIONS = {"train": 500, "validation": 250, "test": 250}
"""Split -> questions of each of its worlds, for each level."""
_worlds = Kept[World](2)
"""Only what is made of them is used again."""
_questions = Kept[tuple[Question, ...]](64)
_corpora = Kept[Corpus](16)


class Shelved(NamedTuple):
    """What one task is about."""

    question: Question
    corpus: Callable[[], Corpus]
    """Built when it is first needed."""


def fetch(params: Mapping[str, Any]) -> Shelved:
    """The question that a task's `params` name: `split`, `world`, `level`, `index` and perhaps `pages` of a generated
    one; `set`, `split` and `question`, and what `filed.load_filed` takes, of one from files.

    Raises:
        DataError, UnknownNameError: there is no such question.
    """
    if "question" in params:
        from palaestra.envs.search.filed import fetch_filed

        return fetch_filed(params)
    split, level = str(params.get("split")), str(params.get("level"))
    check_names(split, level)
    number = whole(params, "world", "a search task", most=WORLDS[split] - 1)
    pages = whole(params, "pages", "a search task", default=PAGES, least=FEWEST, most=MOST)
    asked = questions(split, number, pages, level)
    index = whole(params, "index", "a search task", most=len(asked) - 1)
    return Shelved(asked[index], lambda: corpus(split, number, pages))


def is_small(params: Mapping[str, Any]) -> bool:
    """Whether a task's corpus is ready, or made in so short a time that nobody has to wait for it."""
    pages = params.get("pages", PAGES)
    return "question" not in params and isinstance(pages, int) and pages <= 2 * PAGES


def check_names(split: str, level: str) -> None:
    """Raises `UnknownNameError` for a split or level that generated questions do not have."""
    if split not in WORLDS:
        raise UnknownNameError("split of search", split, WORLDS)
    if level not in LEVELS:
        raise UnknownNameError("level of search", level, LEVELS)


def questions(split: str, number: int, pages: int, level: str) -> tuple[Question, ...]:
    """The questions of one level about one world.

    Raises:
        DataError: the world is too small for so many.
    """
    key = (split, number, pages)
    return _questions.get((*key, level), lambda: _asked(_world(*key), level, QUESTIONS[split], _name(*key)))


def corpus(split: str, number: int, pages: int) -> Corpus:
    """The pages of one world."""
    key = (split, number, pages)
    return _corpora.get(key, lambda: Corpus(write_pages(_world(*key), _name(*key))))


def _asked(world: World, level: str, count: int, seed: str) -> tuple[Question, ...]:
    asked = tuple(ask(world, level, count, seed))
    if len(asked) < count:
        size = len(world.entities)
        raise DataError(f"a world of {size} pages has only {len(asked)} of {count} {level} questions; use more pages")
    return asked


def _world(split: str, number: int, pages: int) -> World:
    return _worlds.get((split, number, pages), lambda: build_world(split, number, pages))


def _name(split: str, number: int, pages: int) -> str:
    return f"{split}/{number}/{pages}"
