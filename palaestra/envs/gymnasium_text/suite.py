"""The `gymnasium` suite: `gymnasium/ID:SPLIT` for every environment of Gymnasium's registry."""

from __future__ import annotations

from typing import Any

from palaestra.envs.gymnasium_text.words import WORDS
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import UnknownNameError

ENV = "gymnasium/Text-v0"
LEVEL = "FrozenLake-v1"
SEEDS = {"train": range(100_000), "validation": range(100_000, 101_000), "test": range(101_000, 102_000)}
"""Split -> its seeds."""


def load(split: str, level: str | None = None, **params: Any) -> TaskSuite:
    """The episodes of one split.

    Args:
        split: `train`, `validation` or `test`; their seeds are disjoint.
        level: an id of Gymnasium's registry; the default is `FrozenLake-v1`.
        params: of each task: `kwargs` for `gymnasium.make`, `max_turns`.

    Raises:
        MissingExtraError: gymnasium is not installed, and the id is none that it is known to have.
        UnknownNameError: no such id or split.
    """
    id = level or LEVEL
    if split not in SEEDS:
        raise UnknownNameError("split of gymnasium", split, SEEDS)
    if id not in WORDS:
        from palaestra.envs.gymnasium_text.env import check_id

        check_id(id)
    seeds = SEEDS[split]

    def build(index: int) -> Task:
        return Task(
            env=ENV, name=f"{id}-{index}", split=split, seed=seeds[index], params={"env": id, **params}, kind=id
        )

    return TaskSuite(f"gymnasium/{id}", split, len(seeds), build)
