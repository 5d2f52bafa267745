"""The seams of an update: what a plug-in may be, and what passes through it.

    rewards → filters → old policy's columns → advantage → shapers → selectors
      → each optimiser step:  gates
           → loss = Σ over terms of  coefficient · Σ over tokens of  weight · value     (+ the same of replayed batches)
      → trackers

A **reward shaper** adds to returns. A **filter** says which rows take part, by what was played; a **selector** is a
filter that has seen the advantages. A **shaper** changes advantages. A **gate** weighs or marks tokens, by statistics
of all tokens of a step. A **term** (the policy loss, an entropy bonus, a KL penalty, ...) gives one value per policy
token; how tokens become one number is its `aggregation`, whose weights are computed once on the whole mini-batch. A
**replay** brings further batches with terms of their own. A **tracker** is memory that moves after the update. Before
all that, a **chooser** says which tasks are played, an **allocator** how often each, a **planner** how the groups are
played, and a **refill** whether further groups are. Every plug-in declares what it `requires`, and the learner
computes the union once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from palaestra.agents.planner import Planner
from palaestra.envs.tasks import Task
from palaestra.training.aggregate import Mode, token_weights
from palaestra.training.batch import Batch

if TYPE_CHECKING:
    from palaestra.config import LearnerConfig
    from palaestra.training.forward import PolicyModel
    from palaestra.training.providers import Attachment, Provider, ReferenceManager, Supplier

Need = Literal["entropy_grad", "old_logprob", "old_entropy", "ref_logprob", "scored"]
"""What a plug-in may require beyond the current log-probs, the rollout's columns and the advantage. `scored`: the
`old_*` columns must be there before the first update already, so that they cannot come from its own forward pass."""

NOTHING: frozenset[Need] = frozenset()
"""For plug-ins that require nothing."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training stands."""

    iteration: int
    """From 0."""
    total: int
    """Planned iterations."""
    seed: int = 0
    """The run's; whatever a plug-in draws derives from it and from the rest of the moment."""
    step: int = 0
    """Optimiser step of the iteration, from 0."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Policy tokens of a micro-batch, or of a whole optimiser step, all columns [P]. In the training pass the first two
    and `extra` carry gradient; before a step nothing does."""

    logprob: Tensor
    entropy: Tensor
    """Nats, at the sampling temperature."""
    old_logprob: Tensor
    rollout_logprob: Tensor
    advantage: Tensor
    step_id: Tensor
    """int64: turn of the token."""
    ref_logprob: Tensor | None = None
    row: Tensor | None = None
    """int64: row of the batch. A row's tokens are never split over micro-batches."""
    old_entropy: Tensor | None = None
    """Nats; `None` in the training pass."""
    weight: Tensor | None = None
    """What gates multiply the policy loss by; `None`: 1."""
    unclipped: Tensor | None = None
    """bool: tokens whose policy loss gates took the clip from; `None`: none."""
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    """What gates say to terms, by name."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """The statistics that plug-ins asked for, of the same policy as `logprob`, by name."""
    old_extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Those of the old policy."""


@dataclass(frozen=True, slots=True)
class Values:
    """What a term says about each token."""

    value: Tensor
    """[P], with gradient."""
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    """[P] each, whose means are logged: of bool, the share among all policy tokens, of which one that need not be
    forwarded is none; of others, the mean over those that were forwarded."""


@dataclass(frozen=True, slots=True)
class BoundTerm:
    """A term with the constants of one iteration."""

    name: str
    """Metric under which its aggregated value (before `coefficient`) is logged."""
    coefficient: float
    aggregation: Mode
    value: Callable[[Tokens], Values]
    constant: float | None = None
    """Divisor of the aggregations that have one, in tokens."""
    log: Mapping[str, float | None] = field(default_factory=dict)
    """This iteration's constants, for the metrics."""

    def weights(self, batch: Batch) -> Tensor:
        """[B, T] float64 over a whole mini-batch, coefficient included."""
        weights = token_weights(
            batch.trained, self.aggregation, step_id=batch.step_id, traj=batch.traj, constant=self.constant
        )
        return weights * self.coefficient


class Needy(Protocol):
    """Whatever says what it reads."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads."""


class Term(Protocol):
    """One summand of the loss."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads."""

    @property
    def needs_all(self) -> bool:
        """Whether tokens without advantage have a gradient too."""

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The term as it is at `moment` for a whole iteration's `batch`; `None` where it is switched off."""


class RewardShaper(Protocol):
    """Adds to the returns that the environment gave."""

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[N] float64: what each trajectory gets in addition."""


class Filter(Protocol):
    """Leaves rows out of an iteration, by the rewards as they were played; as a selector, also by the advantages."""

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool: the rows to keep."""


class Advantage(Protocol):
    """Credit."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in; a constant."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """What a shaper made of the advantages."""

    advantage: Tensor
    """[B, T]; what it holds where `batch.trained` is false is ignored."""
    log: Mapping[str, float | None] = field(default_factory=dict)
    """For the metrics; the same keys in every iteration."""


class Shaper(Protocol):
    """Changes advantages, once an iteration, before it is cut into mini-batches: its statistics may be the batch's."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads."""

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """`batch.advantage`, changed; a constant."""


@runtime_checkable
class TokenShaper(Protocol):
    """Changes advantages again in every forward pass, for released code that does so: what it makes of them depends on
    how the iteration is cut into micro-batches, and they are logged without it."""

    def on_tokens(self, tokens: Tokens) -> Tokens:
        """The tokens of one micro-batch with other advantages, constants."""


@dataclass(frozen=True, slots=True)
class Gated:
    """What a gate says of each token, all columns [P] and constants."""

    weight: Tensor | None = None
    """Multiplies the policy loss: 0 drops a token, which denominators count all the same. `None`: 1."""
    unclipped: Tensor | None = None
    """bool: no clip here, dual clip included. `None`: nowhere."""
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    """For terms, by name; one gate, one set of names."""
    log: Mapping[str, float] = field(default_factory=dict)
    """For the metrics, where the means over the optimiser steps go; the same keys in every step."""


class Gate(Protocol):
    """Chooses among the tokens of one optimiser step, by statistics of all of them, so that micro-batches make no
    difference. The learner scores the step's rows before it, unless the weights are still the old policy's."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads beyond log-probs and entropies, present and old."""

    def __call__(self, tokens: Tokens, batch: Batch, moment: Moment) -> Gated:
        """Of the step's policy tokens, none of which carries gradient; `batch.reward[tokens.row]` is their return."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number per policy token that only the whole distribution gives. Computed chunk by chunk."""

    name: str
    """Key in `Tokens.extra`, `Tokens.old_extra` and `Batch.extra`."""
    function: Callable[[Tensor, Tensor], Tensor]
    """Logits [c, V] float32, divided by the temperature and minus infinity where a token was not allowed, and the
    tokens taken [c] int64, to [c]."""
    gradient: bool = False
    """Compute it in the training pass too, with gradient."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A further batch of an optimiser step: its gradient is added to that of the mini-batch."""

    name: str
    """Prefix of its metrics."""
    batch: Batch
    """With advantages and old log-probs; all rows are trained."""
    terms: tuple[BoundTerm, ...]
    gates: tuple[Gate, ...] = ()


class Replay(Protocol):
    """Brings batches that were not played in this iteration."""

    @property
    def requires(self) -> frozenset[Need]:
        """What it reads of the iteration's own batch."""

    def __call__(self, batch: Batch, moment: Moment, steps: int) -> Sequence[Extra | None]:
        """One for each of the iteration's optimiser steps; what comes beyond them are steps of their own behind them.
        `batch` has its advantages."""


class Tracker(Protocol):
    """Memory across iterations."""

    @property
    def requires(self) -> frozenset[Need]:
        """What `observe` reads."""

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Take in an iteration, after its updates."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Critic(Protocol):
    """What states are worth: learns beside the policy, a step of its own in each of the policy's."""

    def evaluate(self, batch: Batch) -> Batch:
        """The batch with `value` and `returns`, before there are advantages."""

    def learn(self, batch: Batch, rows: Tensor, moment: Moment) -> Mapping[str, float]:
        """One optimiser step on `rows` [b]; its metrics, the same keys each time."""

    def clear(self) -> None:
        """Drop accumulated gradients."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser state, for checkpoints."""

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_tensors` gave."""


@runtime_checkable
class Recalling(Protocol):
    """A tracker that wants to know what the old policy says of rows of earlier iterations."""

    def recall(self, batch: Batch, moment: Moment) -> Batch | None:
        """Before the update of `batch`: the rows to score; `None` for none. `observe` and whatever makes advantages
        find them in `Batch.recalled`, under the tracker's name, with `old_logprob` and `old_entropy` filled in."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The tasks of an iteration's groups."""

    places: Sequence[int]
    """Positions in the suite, one a group."""
    log: Mapping[str, float | None] = field(default_factory=dict)
    """For the metrics; the same keys in every iteration."""


class Chooser(Protocol):
    """Chooses the tasks that an iteration plays. A suite may have very many tasks, and building one may be slow."""

    def __call__(self, suite: Sequence[Task], count: int, moment: Moment, taken: Collection[int] = ()) -> Choice:
        """`count` tasks of the suite; those in `taken` have been played in this iteration already, and do not come
        again unless there are no others. The same for the same state and moment."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The sizes of an iteration's groups."""

    rollouts: Sequence[int]
    """Episodes of each group."""
    log: Mapping[str, float | None] = field(default_factory=dict)
    """For the metrics; the same keys in every iteration."""


class Allocator(Protocol):
    """Shares an iteration's episodes out among its tasks."""

    def __call__(self, tasks: Sequence[Task], size: int, moment: Moment) -> Allocation:
        """`size * len(tasks)` episodes in all, at least one for each."""


class Refill(Protocol):
    """Asks for further groups before an update."""

    @property
    def rounds(self) -> int:
        """Most rounds of play in an iteration, the first included."""

    def missing(self, batch: Batch, moment: Moment) -> int:
        """How many more groups to play; `batch` has what was played so far, without advantages. It is asked again after
        they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What plug-ins add to an algorithm; each seam in the order of the recipe."""

    rewards: tuple[RewardShaper, ...] = ()
    """Their sums are added to the returns, after the filters."""
    filters: tuple[Filter, ...] = ()
    """A row stays if all of them keep it."""
    advantage: Advantage | None = None
    """Replaces the group advantage; at most one plug-in of a recipe may."""
    shapers: tuple[Shaper, ...] = ()
    token_shapers: tuple[TokenShaper, ...] = ()
    """After all other shapers."""
    selectors: tuple[Filter, ...] = ()
    """Filters that read advantages, after the shapers."""
    gates: tuple[Gate, ...] = ()
    """Their weights are multiplied."""
    terms: tuple[Term, ...] = ()
    replays: tuple[Replay, ...] = ()
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    """By a name that no other plug-in has."""
    statistics: tuple[Statistic, ...] = ()
    providers: tuple[Provider, ...] = ()
    """See `palaestra.training.providers`, as for the next three."""
    attachments: tuple[Attachment, ...] = ()
    suppliers: tuple[Supplier, ...] = ()
    reference: ReferenceManager | None = None
    critic: Callable[[PolicyModel, LearnerConfig], Critic] | None = None
    """Makes the critic from the policy as it begins; at most one plug-in of a recipe may."""
    chooser: Chooser | None = None
    """Chooses the tasks; `None` walks through the suite in a random order."""
    allocator: Allocator | None = None
    """Shares out the episodes; `None` gives every group `rollout.group_size`."""
    refill: Refill | None = None
    """May have further groups played; `None` plays one round."""
    planner: Planner | None = None
    """Plays an iteration's groups; `None` plays every episode by itself."""
    own_credit: bool = False
    """Tokens that several trajectories share have the advantage of the one that trains them, and not the mean of all
    (`palaestra.training.branches`)."""
