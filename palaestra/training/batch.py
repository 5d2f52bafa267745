"""The learner's batch: typed columns, one row per token sequence (`common.md` 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palaestra.trajectories.record import Trajectory


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which token ids a constrained completion could choose from, ragged, one entry per *policy token*, row by row.

    Entry `k` is `ids[offsets[k]:offsets[k+1]]`; an empty entry means that every token was allowed.
    """

    ids: Tensor
    """[M] int64."""
    offsets: Tensor
    """[P+1] int64, P = number of policy tokens of the batch."""

    def to(self, device: torch.device) -> Allowed:
        """The same on `device`."""
        return Allowed(self.ids.to(device), self.offsets.to(device))


@dataclass(frozen=True, slots=True)
class Turns:
    """`S` turns, those of one trajectory after each other and in time order."""

    start: Tensor
    """[N] int64: where each trajectory's turns begin."""
    traj: Tensor
    """[S] int64: position of the turn's trajectory."""
    group: Tensor
    """[S] int64."""
    reward: Tensor
    """[S] float64: the step's own reward, less the penalty of a refused action."""
    anchor: Tensor
    """[S] int64: turns that began with the same observation have the same number."""

    def add_last(self, values: Tensor) -> Turns:
        """The turns with each trajectory's value [N] added to the reward of its last turn."""
        last = torch.cat((self.start[1:], self.start.new_tensor([len(self.traj)]))) - 1
        return dataclasses.replace(self, reward=self.reward.index_add(0, last, values.double()))

    def on_tokens(self, values: Tensor, batch: Batch) -> Tensor:
        """Each turn's value [S] on its policy tokens, [B, T] float32, 0 elsewhere."""
        tokens = torch.zeros(batch.shape)
        turn = self.start[batch.traj][:, None] + batch.step_id
        tokens[batch.mask] = values[turn[batch.mask]].float()
        return tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """`B` rows padded on the right to `T` tokens. Column `t` of a per-token tensor speaks of token `ids[:, t]`."""

    ids: Tensor
    """[B, T] int64; 0 in the padding."""
    length: Tensor
    """[B] int64: tokens in each row, padding excluded."""
    mask: Tensor
    """[B, T] bool: tokens that the policy sampled. Never true in column 0."""
    step_id: Tensor
    """[B, T] int64: turn of the token, -1 where `mask` is false."""
    traj: Tensor
    """[B] int64: trajectory of the row (rows of one trajectory are its context-broken pieces)."""
    group: Tensor
    """[B] int64: rows of one group began in the same state."""
    reward: Tensor
    """[B] float64: total reward of the row's trajectory."""
    rollout_logprob: Tensor
    """[B, T] float32: log-prob under the engine that sampled the token, 0 where not masked in."""
    rollout_entropy: Tensor
    """[B, T] float32: entropy at generation, 0 where not masked in or unknown."""
    allowed: Allowed | None = None
    temperature: float = 1.0
    advantage: Tensor | None = None
    """[B, T] float32, 0 where not masked in."""
    old_logprob: Tensor | None = None
    """[B, T] float32: under the learner's weights before the first update of the iteration."""
    old_entropy: Tensor | None = None
    """[B, T] float32: of the same pass."""
    ref_logprob: Tensor | None = None
    """[B, T] float32: under the frozen reference policy."""
    value: Tensor | None = None
    """[B, T] float32, 0 where not trained: a critic's value of the state before the token, or before the token's turn;
    in all of a turn's tokens then."""
    returns: Tensor | None = None
    """[B, T] float32: what the critic learns to say there."""
    turns: Turns | None = None
    """What happened turn by turn, for credit within episodes; `step_id` is a position in the trajectory's turns."""
    copy_of: Tensor | None = None
    """[B, T] int64: of tokens that a trajectory has from the one that it branched off, where in the batch they are
    trained, as `row * T + column`; -1 elsewhere. Here they are context: false in `mask`. `None`: nothing branched."""
    kept: Tensor | None = None
    """[B] bool: rows that the sample filters left. The others have no part in statistics, denominators and gradients.
    `None`: all rows."""
    episodes: tuple[Trajectory, ...] | None = None
    """[N]: what the trajectories were, for plug-ins that read more of them than their tokens."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """[B, T] float32 each, 0 where not masked in: statistics of the old policy that plug-ins asked for."""
    recalled: Mapping[str, Batch] = field(default_factory=dict)
    """Rows of earlier iterations that trackers asked for, by tracker; see `palaestra.training.seams.Recalling`."""
    notes: Mapping[str, float | None] = field(default_factory=dict)
    """What plug-ins saw in this iteration, for the metrics."""

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)."""
        return self.ids.shape[0], self.ids.shape[1]

    @property
    def trained(self) -> Tensor:
        """[B, T] bool: the policy tokens of the rows that were kept."""
        return self.mask if self.kept is None else self.mask & self.kept[:, None]

    @property
    def rows(self) -> Tensor:
        """[b] int64: the rows that were kept."""
        return torch.arange(len(self.ids)) if self.kept is None else self.kept.nonzero()[:, 0]

    @property
    def succeeded(self) -> Tensor:
        """[B] bool: the row's trajectory was solved; a positive return, where nothing else is known of it."""
        if self.episodes is None:
            return self.reward > 0
        return torch.tensor([each.success for each in self.episodes], dtype=torch.bool)[self.traj]

    @property
    def outcome(self) -> Tensor:
        """[B] float64: what the environment gave the row's trajectory, without penalties; `reward`, where nothing else
        is known of it."""
        if self.episodes is None:
            return self.reward
        return torch.tensor([each.total_reward for each in self.episodes], dtype=torch.float64)[self.traj]

    def keeping(self, kept: Tensor) -> Batch:
        """The same batch without the rows that are false in `kept` [B]."""
        return self.with_(kept=kept if self.kept is None else self.kept & kept)

    def rewarded(self, values: Tensor) -> Batch:
        """The same batch with each trajectory's value [N] added to its return, and to the reward of its last turn."""
        turns = None if self.turns is None else self.turns.add_last(values)
        return self.with_(reward=self.reward + values[self.traj], turns=turns)

    def with_(self, **columns: Any) -> Batch:
        """The same batch with some columns replaced."""
        return dataclasses.replace(self, **columns)
