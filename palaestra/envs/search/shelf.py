"""The shelf: corpora and questions that all instances of a process share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from palaestra.envs.params import whole
from palaestra.envs.search.corpus import Corpus
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
_lock = threading.RLock()
"""One thread builds; the others wait for what it builds."""


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

        with _lock:
            return fetch_filed(params)
    split, level = str(params.get("split")), str(params.get("level"))
    check_names(split, level)
    number = whole(params, "world", "a search task", most=WORLDS[split] - 1)
    pages = whole(params, "pages", "a search task", default=PAGES, least=FEWEST, most=MOST)
    asked = questions(split, number, pages, level)
    index = whole(params, "index", "a search task", most=len(asked) - 1)
    return Shelved(asked[index], lambda: corpus(split, number, pages))


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
    with _lock:
        return _questions(split, number, pages, level)


def corpus(split: str, number: int, pages: int) -> Corpus:
    """The pages of one world."""
    with _lock:
        return _corpus(split, number, pages)


@lru_cache(64)
def _questions(split: str, number: int, pages: int, level: str) -> tuple[Question, ...]:
    count = QUESTIONS[split]
    asked = tuple(ask(_world(split, number, pages), level, count, f"{split}/{number}/{pages}"))
    if len(asked) < count:
        raise DataError(f"a world of {pages} pages has only {len(asked)} of {count} {level} questions; use more pages")
    return asked


@lru_cache(16)
def _corpus(split: str, number: int, pages: int) -> Corpus:
    return Corpus(write_pages(_world(split, number, pages), f"{split}/{number}/{pages}"))


@lru_cache(2)
def _world(split: str, number: int, pages: int) -> World:
    """Only what is made of it is kept."""
    return build_world(split, number, pages)
