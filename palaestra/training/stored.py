"""A trajectory on its own, to be trained again in later iterations: taken from a batch, put back into one."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.batch import Allowed, Batch
from palaestra.training.forward import select_allowed
from palaestra.training.numbering import number


@dataclass(frozen=True, slots=True)
class Stored:
    """One trajectory: the tokens of its rows, one row after the other without padding, `P` of `M` sampled."""

    step: int
    """Iteration in which it was played."""
    reward: float
    """Its return then."""
    advantage: float
    """Its advantage then; the mean over its tokens where they differ."""
    length: Tensor
    """[b] int64: tokens of each row."""
    ids: Tensor
    """[M] int64."""
    turn: Tensor
    """[M] int64: -1 where the policy did not sample the token."""
    logprob: Tensor
    """[P] float32: of the sampled tokens, under the learner's weights that played the trajectory."""
    allowed: Allowed | None = None
    """`P` entries: what completions under a constraint could choose from."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values; numbers keep every bit."""
        arrays = {name: _packed(getattr(self, name), kind) for name, kind in _ARRAYS.items()}
        state = {"step": self.step, "reward": self.reward, "advantage": self.advantage, **arrays}
        if self.allowed is None:
            return state
        allowed = {"ids": _packed(self.allowed.ids, "<i4"), "offsets": _packed(self.allowed.offsets, "<i8")}
        return {**state, "allowed": allowed}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Stored:
        """What `state_dict` gave.

        Raises:
            CheckpointError: `state` did not come from there.
        """
        try:
            arrays = {name: _unpacked(state[name], kind) for name, kind in _ARRAYS.items()}
            packed = state.get("allowed")
            allowed = packed and Allowed(_unpacked(packed["ids"], "<i4"), _unpacked(packed["offsets"], "<i8"))
            found = cls(
                int(state["step"]), float(state["reward"]), float(state["advantage"]), **arrays, allowed=allowed
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a saved trajectory: {error!r}") from error
        sampled = int((found.turn >= 0).sum())
        if not int(found.length.sum()) == len(found.ids) == len(found.turn) or sampled != len(found.logprob):
            raise CheckpointError("not a saved trajectory: its tokens, turns and log-probs do not go together")
        return found


_ARRAYS = {"length": "<i4", "ids": "<i4", "turn": "<i4", "logprob": "<f4"}
"""Columns and how they are saved."""


def take(batch: Batch, step: int, chosen: Sequence[int] | None = None) -> list[Stored]:
    """Trajectories of a batch, without the rows that filters left out.

    Args:
        batch: with advantages and the old policy's log-probs.
        step: the iteration.
        chosen: numbers of trajectories that have policy tokens; `None` takes those whose advantage is above 0.
    """
    assert batch.advantage is not None
    known, entry, _ = number(batch.traj)
    sampled = batch.trained.sum(1)
    tokens = sampled.new_zeros(len(known)).index_add(0, entry, sampled)
    total = torch.where(batch.trained, batch.advantage, 0).sum(1, dtype=torch.float64)
    mean = total.new_zeros(len(known)).index_add(0, entry, total) / tokens.clamp(min=1)
    kept = sampled > 0
    place = batch.mask.flatten().cumsum(0).view(batch.shape) - 1
    which = (mean > 0).nonzero()[:, 0] if chosen is None else torch.searchsorted(known, torch.tensor(chosen).long())
    return [
        _taken(batch, step, place, ((entry == each) & kept).nonzero()[:, 0], float(mean[each]))
        for each in which.tolist()
    ]


def _taken(batch: Batch, step: int, place: Tensor, rows: Tensor, advantage: float) -> Stored:
    """`place` [B, T]: number of each policy token among those of the batch."""
    assert batch.old_logprob is not None
    mask, length = batch.mask[rows], batch.length[rows]
    present = torch.arange(batch.shape[1]) < length[:, None]
    allowed = None if batch.allowed is None else select_allowed(batch.allowed, place[rows][mask])
    return Stored(
        step=step,
        reward=float(batch.reward[rows[0]]),
        advantage=advantage,
        length=length,
        ids=batch.ids[rows][present],
        turn=torch.where(mask, batch.step_id[rows], -1)[present],
        logprob=batch.old_logprob[rows][mask].detach().float(),
        allowed=allowed,
    )


def put(stored: Sequence[Stored], advantage: Tensor, *, temperature: float = 1.0) -> Batch:
    """A batch of stored trajectories, each a group of its own; both log-prob columns are those it was played with.

    Args:
        stored: may be empty.
        advantage: [N]: of each of them now.
        temperature: at which they were sampled.
    """
    count = torch.tensor([len(each.length) for each in stored], dtype=torch.int64)
    traj = torch.repeat_interleave(torch.arange(len(stored)), count)
    length = _joined([each.length for each in stored], torch.int64)
    present = torch.arange(int(length.max()) if len(length) else 0) < length[:, None]
    empty = torch.zeros(present.shape, dtype=torch.int64)
    ids = empty.masked_scatter(present, _joined([each.ids for each in stored], torch.int64))
    turn = (empty - 1).masked_scatter(present, _joined([each.turn for each in stored], torch.int64))
    mask = turn >= 0
    logprob = empty.float().masked_scatter(mask, _joined([each.logprob for each in stored], torch.float32))
    reward = torch.tensor([each.reward for each in stored], dtype=torch.float64)
    return Batch(
        ids=ids,
        length=length,
        mask=mask,
        step_id=turn,
        traj=traj,
        group=traj,
        reward=reward[traj],
        rollout_logprob=logprob,
        rollout_entropy=torch.zeros_like(logprob),
        allowed=_all_allowed(stored),
        temperature=temperature,
        advantage=torch.where(mask, advantage[traj][:, None].float(), 0.0),
        old_logprob=logprob,
    )


def _all_allowed(stored: Sequence[Stored]) -> Allowed | None:
    """That of all tokens; those of a trajectory without a constraint have empty entries."""
    if all(each.allowed is None for each in stored):
        return None
    parts = [each.allowed for each in stored]
    counts = [
        torch.zeros(len(each.logprob), dtype=torch.int64) if part is None else part.offsets.diff()
        for each, part in zip(stored, parts, strict=True)
    ]
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), *counts)).cumsum(0)
    return Allowed(_joined([part.ids for part in parts if part is not None], torch.int64), offsets)


def _joined(parts: Sequence[Tensor], kind: torch.dtype) -> Tensor:
    return torch.cat((torch.zeros(0, dtype=kind), *parts))


def _packed(values: Tensor, kind: str) -> str:
    return base64.b64encode(values.numpy().astype(kind).tobytes()).decode()


def _unpacked(text: str, kind: str) -> Tensor:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
    return torch.from_numpy(values.astype(np.float32 if kind == "<f4" else np.int64))
