"""From trajectories to the learner's batch.

A row is a sequence of nodes read once by the model. A step whose prompt extends the row (the previous prompt, the
previous completion, the new observation) is appended to it, so that an episode with full history is one row and its
shared prefix is computed once. A step whose context was cut (a window, a summary) begins a new row. Every completion is
trained exactly once: where it comes again, as the context of a later row or at the beginning of a trajectory that
branched off, it is masked out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palaestra.errors import DataError
from palaestra.training.batch import Allowed, Batch, Turns
from palaestra.training.groups import require_equal_starts
from palaestra.trajectories.branches import keepers
from palaestra.trajectories.record import UNTRAINABLE, Node, Trajectory

TRAINABLE = ("ok", "overflow")
"""Statuses of episodes whose outcome is the agent's doing. The others were cut off from outside and teach nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One token sequence of one trajectory."""

    trajectory: int
    """Its position in `Rows.trajectories`."""
    nodes: list[int]
    """Indices of the trajectory's nodes, in order."""
    steps: dict[int, int]
    """Node index of each completion that has its place in this row → its turn."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch and what it was made from."""

    batch: Batch
    trajectories: list[Trajectory]
    """Those in the batch, witnesses last; `batch.traj` are positions in this list."""
    left_out: dict[str, int]
    """How many others there were, by status (`empty`: nothing was sampled)."""


def build_rows(
    trajectories: Sequence[Trajectory],
    *,
    temperature: float = 1.0,
    invalid_penalty: float = 0.0,
    witnesses: Sequence[Trajectory] = (),
) -> Rows:
    """The batch of an iteration.

    Args:
        trajectories: as the rollout driver gave them; order is kept.
        temperature: at which they were sampled.
        invalid_penalty: subtracted from the return for each action that the environment refused.
        witnesses: members of the same groups that were learned from before: their returns count in the groups'
            statistics, and none of their tokens is trained again.

    Raises:
        DataError: nodes and steps that do not fit together, or an agent noted that what it played is not for training.
        TrainingError: members of a group began in different states.
    """
    _refuse_untrainable(trajectories)
    kept = [t for t in trajectories if t.status in TRAINABLE and t.sampled_tokens]
    seen = [t for t in witnesses if t.status in TRAINABLE and t.sampled_tokens]
    left_out = Counter(t.status if t.status not in TRAINABLE else "empty" for t in trajectories)
    left_out.subtract(t.status if t.status not in TRAINABLE else "empty" for t in kept)
    rows = [row for index, trajectory in enumerate(kept) for row in rows_of(trajectory, index)]
    rows += [Row(n, row.nodes, {}) for n, t in enumerate(seen, start=len(kept)) for row in rows_of(t, n)]
    owners = [*keepers(kept, trajectories), *([] for _ in seen)]
    kept += seen
    require_equal_starts(kept)
    rewards = [t.total_reward - invalid_penalty * sum(s.invalid for s in t.steps) for t in kept]
    batch = _fill(rows, kept, rewards, temperature, owners)
    batch = batch.with_(turns=_turns(kept, invalid_penalty), episodes=tuple(kept))
    return Rows(batch=batch, trajectories=kept, left_out={k: n for k, n in sorted(left_out.items()) if n > 0})


def _refuse_untrainable(trajectories: Sequence[Trajectory]) -> None:
    for trajectory in trajectories:
        if reason := trajectory.meta.get(UNTRAINABLE):
            raise DataError(f"trajectory {trajectory.id!r} of {trajectory.agent} cannot be trained on: {reason}")


def rows_of(trajectory: Trajectory, index: int = 0) -> list[Row]:
    """The rows of one trajectory, in time order."""
    rows: list[Row] = []
    previous = -1
    for turn, step in enumerate(trajectory.steps):
        if step.completion < 0:
            continue
        if not 0 <= step.completion < len(trajectory.nodes):
            raise DataError(f"trajectory {trajectory.id!r}, step {turn}: there is no node {step.completion}")
        prompt = step.prompt
        row = rows[-1] if rows else None
        if row is not None and prompt is None:
            new: list[int] | None = list(range(previous + 1, step.completion))
        elif row is not None and prompt is not None and prompt[: len(row.nodes)] == row.nodes:
            new = prompt[len(row.nodes) :]
        else:
            new = None
        if row is None or new is None:
            row = Row(index, [], {})
            rows.append(row)
            new = list(range(step.completion)) if prompt is None else list(prompt)
        row.nodes.extend(new)
        row.nodes.append(step.completion)
        row.steps[step.completion] = turn
        previous = step.completion
    return rows


def _fill(
    rows: Sequence[Row],
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float],
    temperature: float,
    kept_in: Sequence[Sequence[int]],
) -> Batch:
    """`kept_in` as `keepers` gives it."""
    lengths = np.array(
        [sum(len(trajectories[r.trajectory].nodes[n].ids) for n in r.nodes) for r in rows], dtype=np.int64
    )
    shape = (len(rows), int(lengths.max(initial=0)))
    columns = _Columns(
        ids=np.zeros(shape, np.int64),
        step=np.full(shape, -1, np.int64),
        logprob=np.zeros(shape, np.float32),
        entropy=np.zeros(shape, np.float32),
    )
    allowed: list[list[int]] = []
    for index, row in enumerate(rows):
        columns.write(index, row, trajectories[row.trajectory], kept_in[row.trajectory], allowed)
    if (columns.step[:, :1] >= 0).any():
        raise DataError("a row begins with a sampled token: nothing predicts it")
    groups = _numbered(t.group or t.id for t in trajectories)
    owner = np.array([r.trajectory for r in rows], dtype=np.int64)
    return Batch(
        ids=torch.from_numpy(columns.ids),
        length=torch.from_numpy(lengths),
        mask=torch.from_numpy(columns.step >= 0),
        step_id=torch.from_numpy(columns.step),
        traj=torch.from_numpy(owner),
        group=torch.from_numpy(groups[owner] if len(rows) else owner),
        reward=torch.from_numpy(np.array(rewards, dtype=np.float64)[owner] if len(rows) else np.zeros(0)),
        rollout_logprob=torch.from_numpy(columns.logprob),
        rollout_entropy=torch.from_numpy(columns.entropy),
        allowed=_ragged(allowed) if any(allowed) else None,
        temperature=temperature,
        copy_of=columns.copy_of() if any(kept_in) else None,
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """The padded per-token arrays [B, T] being filled."""

    ids: NDArray[np.int64]
    step: NDArray[np.int64]
    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    places: dict[tuple[int, int], tuple[int, slice]] = field(default_factory=dict)
    """Where each turn's completion is trained, by trajectory and turn: its row and columns."""
    copies: list[tuple[tuple[int, int], int, slice]] = field(default_factory=list)
    """Completions that are trained at another place: which, and where they are."""

    def write(
        self, index: int, row: Row, trajectory: Trajectory, kept_in: Sequence[int], allowed: list[list[int]]
    ) -> None:
        start = 0
        for n in row.nodes:
            node = trajectory.nodes[n]
            span = slice(start, start + len(node.ids))
            self.ids[index, span] = node.ids
            if n in row.steps:
                _check_sampled(node, trajectory)
                turn = row.steps[n]
                keeper = kept_in[turn] if turn < len(kept_in) else row.trajectory
                if keeper == row.trajectory:
                    self.places[keeper, turn] = index, span
                    self._train(index, span, node, turn, allowed)
                else:
                    self.copies.append(((keeper, turn), index, span))
            start = span.stop

    def _train(self, index: int, span: slice, node: Node, turn: int, allowed: list[list[int]]) -> None:
        self.step[index, span] = turn
        self.logprob[index, span] = node.logprobs
        if node.entropies:
            self.entropy[index, span] = node.entropies
        allowed.extend(node.allowed if node.allowed is not None else [[]] * len(node.ids))

    def copy_of(self) -> Tensor:
        """As `Batch.copy_of`."""
        width = self.ids.shape[1]
        found = np.full(self.ids.shape, -1, np.int64)
        for which, index, span in self.copies:
            row, columns = self.places.get(which, (index, slice(0)))
            if not np.array_equal(self.ids[row, columns], self.ids[index, span]):
                raise DataError(f"turn {which[1]} of a trajectory and of one that branched off it later differ")
            found[index, span] = row * width + np.arange(columns.start, columns.stop)
        return torch.from_numpy(found)


def _turns(trajectories: Sequence[Trajectory], invalid_penalty: float) -> Turns:
    steps = [step for t in trajectories for step in t.steps]
    lengths = np.array([len(t.steps) for t in trajectories], dtype=np.int64)
    groups = _numbered(t.group or t.id for t in trajectories)
    rewards = np.array([step.reward - invalid_penalty * step.invalid for step in steps], dtype=np.float64)
    return Turns(
        start=torch.from_numpy(np.cumsum(lengths) - lengths),
        traj=torch.from_numpy(np.repeat(np.arange(len(trajectories)), lengths)),
        group=torch.from_numpy(np.repeat(groups, lengths)),
        reward=torch.from_numpy(rewards),
        anchor=torch.from_numpy(_numbered(step.observation for step in steps)),
    )


def _check_sampled(node: Node, trajectory: Trajectory) -> None:
    count = len(node.ids)
    fits = node.sampled and len(node.logprobs) == count and len(node.entropies) in (0, count)
    if not fits or (node.allowed is not None and len(node.allowed) != count):
        raise DataError(
            f"trajectory {trajectory.id!r}: a completion of {count} tokens has {len(node.logprobs)} log-probs and "
            f"{len(node.entropies)} entropies, or was not sampled"
        )


def _numbered(names: Iterable[str]) -> NDArray[Any]:
    """Each name's number, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _ragged(allowed: Sequence[Sequence[int]]) -> Allowed:
    offsets = np.zeros(len(allowed) + 1, dtype=np.int64)
    np.cumsum([len(a) for a in allowed], out=offsets[1:])
    flat = np.fromiter((token for a in allowed for token in a), dtype=np.int64, count=int(offsets[-1]))
    return Allowed(ids=torch.from_numpy(flat), offsets=torch.from_numpy(offsets))
