"""The `search` suite: generated questions by level, the user's own, and published sets."""

from __future__ import annotations

from typing import Any

from palaestra.envs.params import whole
from palaestra.envs.search import shelf
from palaestra.envs.search.filed import ENV, FILE, load_filed
from palaestra.envs.search.options import NAMES, Options, read_options
from palaestra.envs.search.questions import LEVELS
from palaestra.envs.search.sets import SETS
from palaestra.envs.search.world import FEWEST, MOST
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, UnknownNameError

LEVEL = "medium"


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The questions of one split.

    Args:
        split: `train`, `validation` or `test`; they are about different worlds, with different names.
        level: `easy` (1 hop), `medium` (2) or `hard` (3 or 4) are generated; `file` reads the user's own, and the
            names of `sets.SETS` published ones.
        params: any of `Options`; `pages` of a generated world; `data` of `file`, and what `load_filed` says.

    Raises:
        ConfigError: a parameter that the level does not have, or none where it needs one.
        DataError: a value out of bounds, or files that hold something else.
        UnknownNameError: no such level or split.
    """
    level = level or LEVEL
    read_options(params, Options())
    if level == FILE or level in SETS:
        return load_filed(split, level, params)
    if level not in LEVELS:
        raise UnknownNameError("level of search", level, [*LEVELS, FILE, *SETS])
    shelf.check_names(split, level)
    unknown = sorted(set(params) - {*NAMES, "pages"})
    if unknown:
        raise ConfigError(f"search/{level} takes no parameter {', '.join(unknown)}; it takes pages, {', '.join(NAMES)}")
    whole(params, "pages", "a search task", default=shelf.PAGES, least=FEWEST, most=MOST)
    size = shelf.WORLDS[split] * shelf.QUESTIONS[split]
    return TaskSuite(f"search/{level}", split, size, lambda index: _task(split, level, index, params))


def _task(split: str, level: str, index: int, params: dict[str, Any]) -> Task:
    world, number = divmod(index, shelf.QUESTIONS[split])
    pages = params.get("pages", shelf.PAGES)
    question = shelf.questions(split, world, pages, level)[number]
    return Task(
        env=ENV,
        name=f"{level}-{world}-{number}" if pages == shelf.PAGES else f"{level}-{pages}-{world}-{number}",
        split=split,
        seed=index,
        params={"split": split, "level": level, "world": world, "index": number, **params},
        kind=question.kind,
    )
