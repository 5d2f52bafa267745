"""Where in a suite the tasks are that have been played, so that nobody has to build the others to know their weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palaestra.envs.tasks import Task
from palaestra.errors import CheckpointError
from palaestra.training.batch import Batch
from palaestra.training.seams import Moment, Need
from palaestra.training.task_key import key_of, keys_of


class Places:
    """A tracker of positions and keys. What was chosen counts only once it was played: a choice changes no state."""

    requires: frozenset[Need] = frozenset()

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._chosen: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def items(self) -> Iterator[tuple[int, str]]:
        """Position and key of each task that was played."""
        yield from self._known.items()

    def choose(self, suite: Sequence[Task], places: Sequence[int]) -> None:
        """These are to be played next."""
        self._chosen |= {place: key_of(suite[place]) for place in places}

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Keep those that were."""
        played = set(keys_of(batch))
        self._known |= {place: key for place, key in self._chosen.items() if key in played}
        self._chosen = {}

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"places": {str(place): key for place, key in self._known.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: `state` did not come from there.
        """
        try:
            self._known = {int(place): str(key) for place, key in state["places"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not saved places of tasks: {error!r}") from error
        self._chosen = {}
