"""What a part may have from beyond its batch: other log-probs, its run, more play, the reference.

The policy before the update (`old_logprob`) and the frozen reference (`ref_logprob`) are columns of their own. Any
other source, a teacher's weights, or the policy's own with another text before it, is a **provider**: its columns are
in `Batch.extra`, so that advantages can read them, and in `Tokens.old_extra`, so that terms can. They are constants.

An **attachment** is told of the run before anything is played: it loads models, or learns how text becomes tokens. A
**supplier** may play between an iteration's episodes and its update. A **reference manager** moves the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path

    from palaestra.agents.chat import ChatFormat
    from palaestra.agents.models import LoadedModel
    from palaestra.config import Recipe
    from palaestra.training.batch import Batch
    from palaestra.training.seams import Moment, Need
    from palaestra.trajectories.record import Trajectory


class Score(Protocol):
    """What the learner lends to providers: a forward pass without gradient, in its own micro-batches."""

    def __call__(self, batch: Batch, model: Any = None, rows: Tensor | None = None) -> Tensor:
        """Log-probs [B, T] float32 of the policy tokens of `rows` (all that were kept), 0 elsewhere, under `model` (the
        policy's present weights); at the batch's temperature, over the ids that were allowed."""


class Provider(Protocol):
    """Says how likely the taken tokens were to somebody else."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads."""

    def __call__(self, batch: Batch, moment: Moment, score: Score) -> Mapping[str, Tensor]:
        """Columns [B, T] float32 by name, 0 where not trained; old log-probs and reference are there."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is made of."""

    recipe: Recipe
    loaded: LoadedModel
    """The policy, before any training, and its tokenizer."""
    chat: ChatFormat
    directory: Path
    """Does not exist before the run has begun."""


class Attachment(Protocol):
    """A part that has to know its run."""

    def check(self) -> None:
        """Before anything is loaded.

        Raises:
            PalaestraError: what the recipe names is not there.
        """

    def attach(self, run: Run) -> None:
        """Before anything is played.

        Raises:
            PalaestraError: it cannot work in this run.
        """


class Supplier(Protocol):
    """Gets what an update will need."""

    async def fetch(self, trajectories: Sequence[Trajectory], moment: Moment) -> None:
        """Between the iteration's episodes and its update. May play; must find the same in a run that was resumed.

        Raises:
            PalaestraError: it is not to be had.
        """


@dataclass(frozen=True, slots=True)
class Renewal:
    """How to move the reference."""

    share: float = 1.0
    """Of the policy in the new reference; 1 copies it."""
    optimiser: bool = False
    """Let the optimiser forget its moments."""


class ReferenceManager(Protocol):
    """Decides when the reference moves. The learner moves it, and checkpoints hold it."""

    def __call__(self, batch: Batch, moment: Moment) -> Renewal | None:
        """After the iteration's updates; `None` leaves it."""


@runtime_checkable
class Spectator(Protocol):
    """A tracker that sees the evaluations on the validation suite."""

    def evaluated(self, iteration: int, success: float) -> None:
        """The rate of solved episodes after `iteration` iterations."""
