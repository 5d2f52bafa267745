"""What the policy's entropy was in earlier iterations: the reference that EPO's corridor is drawn around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from palaestra.errors import CheckpointError
from palaestra.training.aggregate import aggregate
from palaestra.training.numbering import number

ReferenceKind = Literal["scalar", "per_turn", "per_turn_compat"]


@dataclass(frozen=True, slots=True)
class EntropyRecord:
    """Old-policy entropy of one iteration's rollouts, in nats."""

    mean: float | None
    """Over all sampled tokens; `None` if there were none."""
    by_turn: tuple[float | None, ...]
    """Entry `t`: mean over the trajectories that sampled in turn `t` of their mean token entropy there."""

    @classmethod
    def measure(cls, entropy: Tensor, mask: Tensor, step_id: Tensor, traj: Tensor | None = None) -> EntropyRecord:
        """Of a whole rollout batch: `entropy` [B, T] from the old-policy pass, `mask`, `step_id` [B, T], `traj` [B]."""
        inside = mask.bool()
        if not bool(inside.any()):
            return cls(None, ())
        mean = float(aggregate(entropy.detach(), inside, "token-mean"))
        return cls(mean, tuple(_turn_means(entropy.detach().double(), inside, step_id, traj)))


def _turn_means(entropy: Tensor, inside: Tensor, step_id: Tensor, traj: Tensor | None) -> list[float | None]:
    rows = torch.arange(len(entropy), device=entropy.device) if traj is None else traj
    pairs = torch.stack((rows[:, None].expand_as(step_id)[inside], step_id[inside]), 1)
    turns, turn, tokens = number(pairs)
    means = entropy.new_zeros(len(turns)).index_add_(0, turn, entropy[inside]) / tokens
    index = turns[:, 1]
    size = int(index.max()) + 1
    total = means.new_zeros(size).index_add_(0, index, means)
    count = means.new_zeros(size).index_add_(0, index, torch.ones_like(means))
    return [t / c if c else None for t, c in zip(total.tolist(), count.tolist(), strict=True)]


class EntropyHistory:
    """Append-only list of records, one per finished iteration. Save it with the run: without it, a resumed run would
    skip the smoothing until the list fills again."""

    def __init__(self, records: Sequence[EntropyRecord] = ()) -> None:
        self._records = list(records)

    @property
    def records(self) -> tuple[EntropyRecord, ...]:
        """Oldest first."""
        return tuple(self._records)

    def append(self, record: EntropyRecord) -> None:
        """Add an iteration, after its updates."""
        self._records.append(record)

    def reference(self, kind: ReferenceKind = "scalar", *, current: EntropyRecord | None = None) -> Tensor | None:
        """The average entropy so far, float64 without gradient; `None` while nothing is known.

        Args:
            kind: `scalar`: mean over the iterations of their token means, shape []. `per_turn`: [S], mean over the
                iterations that have the turn, NaN where none has. `per_turn_compat`: [S] as EPO's released code has
                it: each iteration's turns are padded with zeros *on the left* to the longest and averaged.
            current: the running iteration's record, to count it in (the released code does; the paper does not).
        """
        records = self._records if current is None else [*self._records, current]
        if kind == "scalar":
            means = [r.mean for r in records if r.mean is not None]
            return torch.tensor(math.fsum(means) / len(means), dtype=torch.float64) if means else None
        turns = [list(r.by_turn) for r in records if r.by_turn]
        if not turns:
            return None
        match kind:
            case "per_turn":
                return _aligned(turns)
            case "per_turn_compat":
                return _left_padded(turns)
        raise ValueError(f"unknown reference {kind!r}; known: scalar, per_turn, per_turn_compat")

    def state_dict(self) -> dict[str, Any]:
        """JSON-shaped; floats keep every bit."""
        return {"mean": [r.mean for r in self._records], "by_turn": [list(r.by_turn) for r in self._records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the records by saved ones.

        Raises:
            CheckpointError: `state` did not come from `state_dict`.
        """
        try:
            rows = zip(state["mean"], state["by_turn"], strict=True)
            self._records = [EntropyRecord(mean, tuple(turns)) for mean, turns in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a saved entropy history: {error!r}") from error


def _aligned(turns: list[list[float | None]]) -> Tensor:
    """[S]: masked mean by turn index."""
    columns = [[t[i] for t in turns if i < len(t)] for i in range(max(map(len, turns)))]
    present = [[value for value in column if value is not None] for column in columns]
    means = [math.fsum(column) / len(column) if column else math.nan for column in present]
    return torch.tensor(means, dtype=torch.float64)


def _left_padded(turns: list[list[float | None]]) -> Tensor:
    """[S]: mean over the iterations after padding with zeros on the left."""
    size = max(map(len, turns))
    padded = [[0.0] * (size - len(t)) + [value or 0.0 for value in t] for t in turns]
    return torch.tensor(padded, dtype=torch.float64).mean(0)
