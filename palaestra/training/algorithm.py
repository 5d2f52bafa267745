"""An algorithm is a recipe: a named bundle of small plug-ins and their shared state.

    reward → filters → old policy's columns → advantage → shapers
           → loss = Σ over terms of  coefficient · Σ over tokens of  weight · value  → trackers

A **filter** says which rows take part, by what was played. A **shaper** changes advantages, with the old policy's
entropies of the whole iteration before it. A **term** (the policy loss, an entropy bonus, a KL penalty, ...) gives one
value per policy token; how tokens become one number is its `aggregation`, whose weights are computed once on the whole
mini-batch. A **tracker** is memory that an iteration's terms read and that moves after the update. Every plug-in
declares what it `requires`, and the learner computes the union once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from palaestra.errors import CheckpointError, TrainingError
from palaestra.training.advantage import Normalise, Singleton, Weighting, group_advantage
from palaestra.training.aggregate import Mode, token_weights
from palaestra.training.batch import Batch
from palaestra.training.gigpo import gigpo_advantage
from palaestra.training.kl import Kind, kl_estimate

Need = Literal["entropy_grad", "old_logprob", "old_entropy", "ref_logprob", "scored"]
"""What a plug-in may require beyond the current log-probs, the rollout's columns and the advantage. `scored`: the
`old_*` columns must be there before the first update already, so that they cannot come from its own forward pass."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training stands."""

    iteration: int
    """From 0."""
    total: int
    """Planned iterations."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The policy tokens of one micro-batch, all columns [P]; only the first two carry gradient."""

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


@dataclass(frozen=True, slots=True)
class Values:
    """What a term says about each token."""

    value: Tensor
    """[P], with gradient."""
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)
    """[P] each; their means over all policy tokens are logged."""


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

    def __call__(self, batch: Batch) -> Tensor:
        """[N] float64: what each trajectory gets in addition."""


class Filter(Protocol):
    """Leaves rows out of an iteration, by the rewards as they were played."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B] bool: the rows to keep."""


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

    def __call__(self, batch: Batch) -> Shaped:
        """`batch.advantage`, changed; a constant."""


@runtime_checkable
class TokenShaper(Protocol):
    """Changes advantages again in every forward pass, for released code that does so: what it makes of them depends on
    how the iteration is cut into micro-batches, and they are logged without it."""

    def on_tokens(self, tokens: Tokens) -> Tokens:
        """The tokens of one micro-batch with other advantages, constants."""


class Tracker(Protocol):
    """Memory across iterations."""

    @property
    def requires(self) -> frozenset[Need]:
        """What `observe` reads."""

    def observe(self, batch: Batch) -> None:
        """Take in an iteration, after its updates."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@dataclass(frozen=True, slots=True)
class GroupAdvantage:
    """Group-relative advantage of whole episodes, the same on all their tokens; see `group_advantage`."""

    normalise: Normalise = "std"
    weighting: Weighting = "trajectory"
    singleton: Singleton = "zero"

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in."""
        per_row = group_advantage(
            batch.reward,
            batch.group,
            batch.traj,
            normalise=self.normalise,
            weighting=self.weighting,
            singleton=self.singleton,
        )
        return torch.where(batch.mask, per_row[:, None], 0.0).float()


@dataclass(frozen=True, slots=True)
class GigpoAdvantage:
    """That of the episode plus one of each step among the group's visits to the same state; see `gigpo_advantage`."""

    normalise: Literal["mean", "std"] = "std"
    weighting: Weighting = "trajectory"
    singleton: Singleton = "zero"
    gamma: float = 0.95
    omega: float = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in: the same on all tokens of a turn."""
        turns = batch.turns
        assert turns is not None
        per_turn = gigpo_advantage(
            turns.reward,
            turns.group,
            turns.traj,
            turns.anchor,
            gamma=self.gamma,
            omega=self.omega,
            normalise=self.normalise,
            weighting=self.weighting,
            singleton=self.singleton,
        )
        return turns.on_tokens(per_turn, batch)


@dataclass(frozen=True, slots=True)
class EntropyBonus:
    """`- coeff * entropy`: rewards being undecided."""

    coeff: float
    aggregation: Mode = "token-mean"
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"entropy_grad"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        if self.coeff == 0:
            return None
        value = lambda tokens: Values(tokens.entropy)  # noqa: E731
        return BoundTerm("entropy_bonus", -self.coeff, self.aggregation, value, self.constant)


@dataclass(frozen=True, slots=True)
class KLPenalty:
    """`coeff * KL(policy, reference)` by a per-token estimate."""

    coeff: float
    kind: Kind = "k3"
    aggregation: Mode = "token-mean"
    constant: float | None = None
    requires: frozenset[Need] = frozenset({"ref_logprob"})
    needs_all: bool = True

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """The same at every moment."""
        return BoundTerm("kl", self.coeff, self.aggregation, self.value, self.constant) if self.coeff else None

    def value(self, tokens: Tokens) -> Values:
        """The estimate."""
        assert tokens.ref_logprob is not None
        return Values(kl_estimate(tokens.logprob, tokens.ref_logprob, self.kind))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What an iteration does with its episodes."""

    name: str
    advantage: Callable[[Batch], Tensor]
    """Batch → [B, T] float32."""
    terms: tuple[Term, ...]
    trackers: Mapping[str, Tracker] = field(default_factory=dict)
    rewards: tuple[RewardShaper, ...] = ()
    """Their sums are added to the returns, after the filters."""
    filters: tuple[Filter, ...] = ()
    """A row stays if all of them keep it."""
    shapers: tuple[Shaper, ...] = ()
    """Applied in this order."""
    token_shapers: tuple[TokenShaper, ...] = ()
    """Applied in this order, after all others."""
    invalid_penalty: float = 0.0
    """Subtracted from the return for each refused action."""
    drop_uniform_groups: bool = False
    """Rows without advantage are not forwarded. Exact, because then no term has a gradient there."""

    @property
    def requires(self) -> frozenset[Need]:
        """The union over terms, shapers and trackers."""
        needs = [term.requires for term in self.terms] + [shaper.requires for shaper in self.shapers]
        return frozenset().union(*needs, *(tracker.requires for tracker in self.trackers.values()))

    def select(self, batch: Batch) -> Batch:
        """What takes part in the update, with its rewards: the first thing done with an iteration.

        Raises:
            TrainingError: a reward is not finite.
        """
        if not bool(batch.reward.isfinite().all()):
            worst = int((~batch.reward.isfinite()).nonzero()[0])
            raise TrainingError(
                f"the reward of trajectory {int(batch.traj[worst])} is not finite ({float(batch.reward[worst])}): look "
                "at what its environment returned"
            )
        for keep in self.filters:
            batch = batch.with_(kept=keep(batch) if batch.kept is None else batch.kept & keep(batch))
        for shaper in self.rewards:
            batch = batch.rewarded(shaper(batch))
        return batch

    def prepare(self, batch: Batch) -> Batch:
        """The batch with its advantages; all of its other columns are there."""
        advantage = self.advantage(batch)
        if batch.kept is not None:
            advantage = torch.where(batch.trained, advantage, 0.0)
            batch = batch.with_(notes={**batch.notes, "kept_fraction": float(batch.kept.double().mean())})
        batch = batch.with_(advantage=advantage)
        for shaper in self.shapers:
            shaped = shaper(batch)
            advantage = torch.where(batch.trained, shaped.advantage.detach(), 0.0).float()
            batch = batch.with_(advantage=advantage, notes={**batch.notes, **shaped.log})
        return batch

    def bind(self, moment: Moment, batch: Batch) -> tuple[BoundTerm, ...]:
        """The terms of one iteration."""
        bound = (term.bind(moment, batch) for term in self.terms)
        return tuple(term for term in bound if term is not None)

    def shape_tokens(self, tokens: Tokens) -> Tokens:
        """The tokens of one micro-batch as the terms see them."""
        for shaper in self.token_shapers:
            tokens = shaper.on_tokens(tokens)
        return tokens

    def observe(self, batch: Batch) -> None:
        """Move every tracker, after the iteration's updates."""
        for tracker in self.trackers.values():
            tracker.observe(batch)

    def state_dict(self) -> dict[str, Any]:
        """State of all trackers, JSON values."""
        return {"name": self.name, "trackers": {name: t.state_dict() for name, t in self.trackers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: it is the state of another algorithm.
        """
        if state.get("name") != self.name or set(state["trackers"]) != set(self.trackers):
            raise CheckpointError(f"the checkpoint was made with algorithm {state.get('name')!r}, not {self.name!r}")
        for name, tracker in self.trackers.items():
            tracker.load_state_dict(state["trackers"][name])
