"""A curriculum in training: which level's tasks are chosen, and what came of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from palaestra.config import CurriculumConfig, Recipe
from palaestra.envs.curriculum import Controller, Level, LevelledSuite, level_of, load_curriculum, shares
from palaestra.envs.tasks import Task
from palaestra.errors import CheckpointError, DataError
from palaestra.seeds import derive_seed
from palaestra.training.batch import Batch
from palaestra.training.sampling import Walk, in_turn
from palaestra.training.seams import Choice, Moment, Need, Parts
from palaestra.training.shuffle import permutation

TRACKER = "curriculum"
"""Name of the tracker among the algorithm's."""


class LevelTracker:
    """A tracker: the controller, told of every episode that was played."""

    requires: frozenset[Need] = frozenset()

    def __init__(self, config: CurriculumConfig) -> None:
        self.controller = Controller(
            len(config.levels),
            raise_at=config.raise_at,
            lower_at=config.lower_at,
            window=config.window,
            least=config.least,
        )

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Take in an iteration; filters make no difference."""
        assert batch.episodes is not None
        self.controller.observe((level_of(episode.task), episode.success) for episode in batch.episodes)

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: `state` is of another curriculum.
        """
        try:
            self.controller.load_state_dict(state)
        except DataError as error:
            raise CheckpointError(str(error)) from error


class LevelChooser:
    """Chooses tasks of the present level, and some of the levels before."""

    def __init__(self, controller: Controller, earlier: float, seed: int) -> None:
        self._controller, self._earlier = controller, earlier
        self._walks = [Walk(derive_seed(seed, "curriculum", level)) for level in range(len(controller.rates()))]

    def __call__(self, suite: Sequence[Task], count: int, moment: Moment, taken: Collection[int] = ()) -> Choice:
        """`count` tasks of a `LevelledSuite`."""
        assert isinstance(suite, LevelledSuite)
        draw = np.random.default_rng(derive_seed(moment.seed, "shares", moment.iteration, len(taken))).random()
        places: list[int] = []
        for level, number in enumerate(shares(self._controller.level, count, self._earlier, draw)):
            places += self._of(suite, level, number, count, moment, taken)
        return Choice(places, self._log())

    def _of(
        self, suite: LevelledSuite, level: int, number: int, count: int, moment: Moment, taken: Collection[int]
    ) -> list[int]:
        """Each level has a walk of its own, which goes on by `count` tasks an iteration whether they are played or not,
        so that nothing has to be remembered."""
        start, size = suite.starts[level], suite.starts[level + 1] - suite.starts[level]
        if not taken:
            first, walk = moment.iteration * count, self._walks[level]
            return [start + walk.place(position, size) for position in range(first, first + number)]
        played = [place - start for place in taken if 0 <= place - start < size]
        order = permutation(size, moment.seed, "further tasks", level, moment.iteration, len(taken))
        return [start + place for place in in_turn(order, number, played)]

    def _log(self) -> dict[str, float | None]:
        rates = enumerate(self._controller.rates())
        return {"level": float(self._controller.level), **{f"success_level_{level}": rate for level, rate in rates}}


def curriculum_suite(recipe: Recipe) -> LevelledSuite:
    """The training suite of a recipe with a curriculum; the suites' parameters are `tasks.params` and the level's own.

    Raises:
        PalaestraError: a level's suite cannot be loaded.
    """
    tasks = recipe.tasks
    levels = [Level(suite=each.suite, params={**tasks.params, **each.params}) for each in tasks.curriculum.levels]
    return load_curriculum(levels)


def curriculum_parts(recipe: Recipe) -> dict[str, Parts]:
    """What the curriculum adds to the algorithm; nothing where there is none.

    Raises:
        ConfigError: its settings contradict each other.
    """
    config = recipe.tasks.curriculum
    if not config.levels:
        return {}
    tracker = LevelTracker(config)
    chooser = LevelChooser(tracker.controller, config.earlier, recipe.seed)
    return {"tasks.curriculum": Parts(chooser=chooser, trackers={TRACKER: tracker})}


def curriculum_summary(parts: Parts) -> dict[str, Any]:
    """For `summary.json`: the level that was reached, and how often each was solved lately."""
    tracker = parts.trackers.get(TRACKER)
    if not isinstance(tracker, LevelTracker):
        return {}
    return {"curriculum": {"level": tracker.controller.level, "success": tracker.controller.rates()}}
