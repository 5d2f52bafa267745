"""Generalised advantage estimation (Schulman et al., arXiv 1506.02438) over an episode's decisions.

    delta_k = r_k + gamma V_(k+1) - V_k
    A_k     = delta_k + gamma lambda A_(k+1)         0 after the last

A *decision* is a token that the policy sampled, or a whole turn (Turn-PPO, arXiv 2512.17008). `V_k` is the value of the
state before it, and `r_k` all that was received from it up to the next one; observations are no decisions, so `V_(k+1)`
may be that of another turn, and lie in another row. After an episode's end the value is 0; where it was only cut off it
may be taken for that of the last known state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.numbering import number

Unit = Literal["turn", "token"]


@dataclass(frozen=True, slots=True)
class Decisions:
    """The `D` decisions of a batch, those of one trajectory after each other and in time order."""

    row: Tensor
    """[D] int64: where the decision's first token is."""
    column: Tensor
    """[D] int64."""
    traj: Tensor
    """[D] int64."""
    step: Tensor
    """[D] int64: turn."""
    of_token: Tensor
    """[P] int64: decision of each token of `batch.trained`, in row-major order."""

    @classmethod
    def of(cls, batch: Batch, unit: Unit) -> Decisions:
        """Those of the tokens that are trained."""
        row, column = batch.trained.nonzero(as_tuple=True)
        if not len(row):
            return cls(row, column, row, row, row)
        traj, step = batch.traj[row], batch.step_id[row, column]
        time = (traj, step) if unit == "turn" else (traj, step, column)
        known, of_token, _ = number(torch.stack(time, 1))
        first = column.new_zeros(len(known)).scatter_reduce(0, of_token, column, "amin", include_self=False)
        owner = row.new_zeros(len(known)).scatter(0, of_token, row)
        return cls(owner, first, known[:, 0], known[:, 1], of_token)

    def rewards(self, batch: Batch) -> Tensor:
        """[D] float64: received from each decision up to the next. What came before a trajectory's first decision is
        nobody's doing; without `batch.turns` the whole return comes at the end."""
        received = torch.zeros(len(self.traj), dtype=torch.float64)
        if not len(received):
            return received
        if batch.turns is None:
            received[self.last] = batch.reward[self.row[self.last]]
            return received
        turns = batch.turns
        step = torch.arange(len(turns.traj)) - turns.start[turns.traj]
        scale = int(torch.cat((step, self.step)).max()) + 1
        cause = torch.searchsorted(self.traj * scale + self.step, turns.traj * scale + step, right=True) - 1
        caused = (cause >= 0) & (self.traj[cause.clamp(min=0)] == turns.traj)
        return received.index_add(0, cause[caused], turns.reward[caused])

    @property
    def last(self) -> Tensor:
        """[D] bool: nothing comes after it in its trajectory."""
        end = torch.ones(len(self.traj), dtype=torch.bool)
        end[:-1] = self.traj[1:] != self.traj[:-1]
        return end

    def on_tokens(self, values: Tensor, batch: Batch) -> Tensor:
        """Each decision's value [D] on its tokens, [B, T] float32, 0 elsewhere."""
        tokens = torch.zeros(batch.shape)
        tokens[batch.trained] = values[self.of_token].float()
        return tokens

    def points(self, batch: Batch) -> Tensor:
        """[B, T] bool: the first token of each decision; the state before it is the one that is valued."""
        points = torch.zeros(batch.shape, dtype=torch.bool)
        points[self.row, self.column] = True
        return points


def gae(reward: Tensor, value: Tensor, last: Tensor, after: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Advantages [D] float64.

    Args:
        reward: [D], as `Decisions.rewards`.
        value: [D], of the state before each decision.
        last: [D] bool: nothing comes after it in its trajectory.
        after: [D]: read where `last`: the value of the state after it.
        gamma: discount of one decision.
        lam: 0 trusts the values (one step of them), 1 the rewards (all of them).
    """
    reward, value = reward.double(), value.double()
    following = torch.where(last, after.double(), torch.cat((value[1:], value.new_zeros(1))))
    advantage = reward + gamma * following - value
    distance = _from_the_end(last)
    for here in torch.split(distance.argsort(stable=True), distance.bincount().tolist())[1:]:
        advantage[here] += gamma * lam * advantage[here + 1]
    return advantage


def _from_the_end(last: Tensor) -> Tensor:
    """[D] int64: how many decisions of the trajectory come after each."""
    position = torch.arange(len(last))
    ends = position[last]
    return ends[torch.searchsorted(ends, position)] - position if len(ends) else position


def cut_off(batch: Batch) -> Tensor:
    """[N] bool: episodes that a limit ended (turns, time, the context window), and not their environment."""
    ended = [
        t.status == "overflow" or bool(t.steps and t.steps[-1].truncated and not t.steps[-1].terminated)
        for t in batch.episodes or ()
    ]
    size = int(batch.traj.max()) + 1 if len(batch.traj) else 0
    return torch.tensor(ended + [False] * (size - len(ended)), dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class GaeAdvantage:
    """Of `batch.value`; without a critic's values all are 0."""

    unit: Unit = "turn"
    gamma: float = 0.99
    lam: float = 0.9
    bootstrap: bool = False
    """Value the state after a cut-off episode like the one before its last decision, and not as 0."""

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not trained: the same on all tokens of a decision."""
        decisions = Decisions.of(batch, self.unit)
        value = batch.reward.new_zeros(len(decisions.traj))
        if batch.value is not None:
            value = batch.value[decisions.row, decisions.column].double()
        after = torch.zeros_like(value)
        if self.bootstrap and len(value):
            after = torch.where(cut_off(batch)[decisions.traj], value, 0.0)
        found = gae(decisions.rewards(batch), value, decisions.last, after, gamma=self.gamma, lam=self.lam)
        return decisions.on_tokens(found, batch)
