"""One optimiser step: the batches that add to its gradient, and what gates say of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, Scores
from palaestra.training.seams import BoundTerm, Gate, Gated, Moment, Tokens


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of a batch, and what is computed from them."""

    batch: Batch
    flat: Flat
    rows: Tensor
    """[b] int64."""
    terms: tuple[BoundTerm, ...]
    gates: tuple[Gate, ...] = ()
    name: str = ""
    """Prefix of metrics; empty for the iteration's own batch."""
    fresh: bool = False
    """The old policy's columns are those of this very pass."""

    @property
    def prefix(self) -> str:
        """What its metrics begin with."""
        return f"{self.name}_" if self.name else ""

    def weights(self) -> dict[str, Tensor]:
        """Per term, [B, T] float64: the weights of the rows, 0 in all others."""
        chosen = torch.zeros(len(self.batch.ids), dtype=torch.bool)
        chosen[self.rows] = True
        mini = self.batch.with_(mask=self.batch.mask & chosen[:, None])
        return {term.name: term.weights(mini) for term in self.terms}


@dataclass(frozen=True, slots=True)
class Marked:
    """What all gates say of a source's tokens, [B, T] each."""

    weight: Tensor | None = None
    unclipped: Tensor | None = None
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    log: Mapping[str, float] = field(default_factory=dict)

    def on(self, tokens: Tokens, where: tuple[Tensor, Tensor]) -> Tokens:
        """The tokens with their gates' words."""
        device = tokens.logprob.device

        def column(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[where].to(device)

        marks = {name: values[where].to(device) for name, values in self.marks.items()}
        return replace(tokens, weight=column(self.weight), unclipped=column(self.unclipped), marks=marks)


@dataclass(slots=True)
class Totals:
    """Sums over an iteration's micro-batches."""

    terms: dict[str, float] = field(default_factory=dict)
    """By metric, coefficient taken out."""
    gates: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    """By metric of either: optimiser steps that had it."""
    diagnostics: dict[str, float] = field(default_factory=dict)
    shares: set[str] = field(default_factory=set)
    """Diagnostics that are flags."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Policy tokens that were forwarded, by prefix."""
    every: dict[str, int] = field(default_factory=dict)
    """All policy tokens of the sources, by prefix."""
    loss: float = 0.0
    read: int = 0
    """Tokens that went through the model, padding excluded."""
    norms: list[float] = field(default_factory=list)

    def begin(self, source: Source, marked: Marked) -> None:
        """Count a source of a step."""
        tokens = int((source.flat.offsets[source.rows + 1] - source.flat.offsets[source.rows]).sum())
        self.every[source.prefix] = self.every.get(source.prefix, 0) + tokens
        for term in source.terms:
            self.steps[source.prefix + term.name] = self.steps.get(source.prefix + term.name, 0) + 1
        self.note({source.prefix + name: value for name, value in marked.log.items()})

    def note(self, log: Mapping[str, float]) -> None:
        """Take in a step's figures, of which the mean over the steps is logged."""
        for name, value in log.items():
            self.gates[name] = self.gates.get(name, 0.0) + value
            self.steps[name] = self.steps.get(name, 0) + 1


def gather(batch: Batch, where: tuple[Tensor, Tensor], scores: Scores) -> Tokens:
    """The batch's columns at `where` beside what a policy says of those tokens."""
    device = scores.logprob.device

    def column(values: Tensor | None) -> Tensor:
        assert values is not None
        return values[where].to(device)

    return Tokens(
        logprob=scores.logprob,
        entropy=scores.entropy,
        old_logprob=column(batch.old_logprob),
        rollout_logprob=column(batch.rollout_logprob),
        advantage=column(batch.advantage),
        step_id=column(batch.step_id),
        ref_logprob=None if batch.ref_logprob is None else column(batch.ref_logprob),
        row=where[0].to(device),
        old_entropy=None if batch.old_entropy is None else column(batch.old_entropy),
        extra=scores.extra,
        old_extra={name: column(values) for name, values in batch.extra.items()},
    )


def mark(source: Source, present: Scores, moment: Moment) -> Marked:
    """Ask the source's gates, one after the other.

    Args:
        source: rows and gates.
        present: of the source's policy tokens, in the order of `flat.tokens_of(rows)`; no gradient.
        moment: with the number of the optimiser step.
    """
    chosen = source.flat.tokens_of(source.rows)
    where = source.flat.row[chosen], source.flat.column[chosen]
    tokens = gather(source.batch, where, present)
    said = [gate(tokens, source.batch, moment) for gate in source.gates]
    return Marked(
        weight=_spread(_product(said), where, source.batch, 1.0),
        unclipped=_spread(_union(said), where, source.batch, 0.0),
        marks={n: _wide(v, where, source.batch, 0.0) for each in said for n, v in each.marks.items()},
        log={name: value for each in said for name, value in each.log.items()},
    )


def _product(said: list[Gated]) -> Tensor | None:
    weights = [each.weight for each in said if each.weight is not None]
    return torch.stack([w.double() for w in weights]).prod(0) if weights else None


def _union(said: list[Gated]) -> Tensor | None:
    flags = [each.unclipped for each in said if each.unclipped is not None]
    return torch.stack(flags).any(0) if flags else None


def _spread(values: Tensor | None, where: tuple[Tensor, Tensor], batch: Batch, default: float) -> Tensor | None:
    return None if values is None else _wide(values, where, batch, default)


def _wide(values: Tensor, where: tuple[Tensor, Tensor], batch: Batch, default: float) -> Tensor:
    """[B, T] with `values` [P] at `where`."""
    wide = torch.full(batch.shape, default, dtype=values.dtype)
    wide[where] = values.detach().cpu()
    return wide
