"""Our algorithm's credit in verl's columns.

verl's driver has rows, not trajectories; these come along as messages, so that turns, groups and outcomes are those
that were played. Log-probs and entropies of the old policy are verl's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palaestra.integrations.layout import Layout
from palaestra.integrations.objective import require_one_row
from palaestra.training.algorithm import Algorithm
from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, Scores
from palaestra.training.rows import build_rows
from palaestra.training.seams import BoundTerm, Moment
from palaestra.training.step import Marked, Source, mark
from palaestra.trajectories.store import decoded

PREFIX = "palaestra_"
"""Of the columns that we add to verl's."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What an algorithm makes of one iteration."""

    batch: Batch
    """With advantages."""
    terms: tuple[BoundTerm, ...]
    moment: Moment
    columns: dict[str, Tensor]
    """[G, R] each, for verl's batch: `advantages`, and under `PREFIX` turns, weights of terms and what gates say."""


def credit(
    algorithm: Algorithm,
    messages: Sequence[bytes | None],
    columns: dict[str, Tensor],
    moment: Moment,
    *,
    temperature: float = 1.0,
) -> Credit:
    """Advantages and per-token weights of an iteration that is one optimiser step.

    Args:
        algorithm: of the recipe.
        messages: [G] `trajectory` of each of verl's rows; `None` for rows that only fill up.
        columns: verl's, [G, R] padded on the right: `old_log_probs`, `entropy`, and `ref_log_prob` where it is needed.
        moment: where training stands.
        temperature: at which was sampled.

    Raises:
        DataError: a message holds no trajectory.
        TrainingError: an episode is several rows, or its reward is not finite.
    """
    played = [None if message is None else decoded(bytes(message)) for message in messages]
    trajectories = [each for each in played if each is not None]
    rows = build_rows(trajectories, temperature=temperature, invalid_penalty=algorithm.invalid_penalty)
    require_one_row(rows.batch)
    ids = ["" if each is None else each.id for each in played]
    layout = Layout.of(rows.batch, ids, [each.id for each in rows.trajectories])
    batch = algorithm.select(rows.batch, moment)
    batch = batch.with_(
        old_logprob=_known(layout, batch, columns["old_log_probs"]),
        old_entropy=_known(layout, batch, columns["entropy"]),
    )
    if "ref_logprob" in algorithm.requires:
        batch = batch.with_(ref_logprob=_known(layout, batch, columns["ref_log_prob"]))
    batch = algorithm.prepare(batch, moment)
    terms = algorithm.bind(moment, batch)
    source = Source(batch, Flat.of(batch), batch.rows, terms, algorithm.parts.gates)
    found = {name: value for name, value in _of(source, moment).items() if value is not None}
    width = columns["old_log_probs"].shape[1]
    return Credit(batch, terms, moment, {name: layout.completions(value, width) for name, value in found.items()})


def _known(layout: Layout, batch: Batch, column: Tensor) -> Tensor:
    """verl's column on our policy tokens, float32."""
    return torch.where(batch.mask, layout.rows(column.detach().float().cpu()), 0.0)


def _of(source: Source, moment: Moment) -> dict[str, Tensor | None]:
    """All columns, [B, T]."""
    batch, marked = source.batch, _marked(source, moment)
    return {
        "advantages": batch.advantage,
        f"{PREFIX}turn": batch.step_id + 1,  # padding is 0
        **{f"{PREFIX}weight_{name}": weights for name, weights in source.weights().items()},
        f"{PREFIX}gate": marked.weight,
        f"{PREFIX}unclipped": None if marked.unclipped is None else marked.unclipped.float(),
        **{f"{PREFIX}mark_{name}": values for name, values in marked.marks.items()},
    }


def _marked(source: Source, moment: Moment) -> Marked:
    """Gates look at the policy before its only step, which is the old one."""
    if not source.gates:
        return Marked()
    batch = source.batch
    chosen = source.flat.tokens_of(source.rows)
    where = source.flat.row[chosen], source.flat.column[chosen]
    assert batch.old_logprob is not None
    assert batch.old_entropy is not None
    return mark(source, Scores(batch.old_logprob[where], batch.old_entropy[where], {}), moment)


def trajectory_messages(extra_fields: Sequence[Any]) -> list[bytes | None]:
    """`trajectory` of each row's `extra_fields`, as verl's queue gives them back."""
    plain = [getattr(each, "data", each) for each in extra_fields]
    return [each.get("trajectory") if isinstance(each, dict) else None for each in plain]
