"""The learner: one iteration's batch in, better weights out.

    filters → score (old log-probs, reference) → advantage, shapers
            → mini-batches of whole episodes → micro-batches → backward → step

A mini-batch's loss is a sum over tokens whose weights hold the global denominators, so how it is cut into micro-batches
changes nothing but memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palaestra.config import LearnerConfig, OptimiserConfig
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.algorithm import Algorithm, BoundTerm, Moment, Tokens
from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, MicroBatch, PolicyModel, micro_batches
from palaestra.training.numbering import number
from palaestra.training.optimiser import Optimiser, learning_rate
from palaestra.training.recompute import recompute_activations
from palaestra.training.shuffle import permutation

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Update:
    """What an iteration's update was."""

    batch: Batch
    """With advantage and the old policy's columns."""
    metrics: dict[str, float | None]
    """`loss`, the aggregated value of each term, means of diagnostics, `grad_norm`, `lr`, `tokens_trained`."""


@dataclass(slots=True)
class _Totals:
    """Sums over an iteration's micro-batches."""

    terms: dict[str, float] = field(default_factory=dict)
    diagnostics: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0
    tokens: int = 0
    """Policy tokens over which diagnostics were summed."""
    read: int = 0
    """Tokens that went through the model, padding excluded."""
    norms: list[float] = field(default_factory=list)

    def add(self, into: dict[str, float], name: str, value: Tensor) -> None:
        into[name] = into.get(name, 0.0) + float(value.detach())


class Learner:
    """Owns the optimiser of a model that it shares with the engine."""

    def __init__(
        self,
        model: Any,
        algorithm: Algorithm,
        *,
        config: LearnerConfig | None = None,
        optimiser: OptimiserConfig | None = None,
        seed: int = 0,
        reference: Any = None,
    ) -> None:
        """Args:
            model: a transformers causal language model; trained in place.
            algorithm: what to compute from a batch.
            config: how.
            optimiser: AdamW and its schedule.
            seed: of the shuffling of episodes into mini-batches.
            reference: a frozen model, where the algorithm requires `ref_logprob`.

        Raises:
            ConfigError: the algorithm requires a reference and there is none, or the model cannot be trained so.
        """
        self.config = config or LearnerConfig()
        self.algorithm = algorithm
        dtype = _DTYPES[self.config.autocast]
        self.policy = PolicyModel(model, autocast=dtype)
        self.optimiser = Optimiser(model, optimiser or OptimiserConfig())
        self.seed = seed
        self.reference = None if reference is None else PolicyModel(reference, autocast=dtype)
        if "ref_logprob" in algorithm.requires and self.reference is None:
            raise ConfigError(f"algorithm {algorithm.name!r} has a KL term, which needs a reference model")
        model.eval()
        if self.config.gradient_checkpointing:
            recompute_activations(model)

    def update(self, batch: Batch, moment: Moment) -> Update:
        """Train on one iteration's episodes.

        Raises:
            TrainingError: loss or gradient is not finite. No step was taken with it.
        """
        try:
            return self._update(batch, moment)
        except TrainingError as error:
            self.optimiser.clear()
            raise TrainingError(f"iteration {moment.iteration}: {error}; the last checkpoint is untouched") from error

    def score(self, batch: Batch, policy: PolicyModel | None = None) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies under the present weights, of the policy tokens of the rows that were kept; both
        [B, T] float32, 0 elsewhere."""
        policy = policy or self.policy
        flat = Flat.of(batch)
        logprob, entropy = (torch.zeros(len(flat.row)) for _ in range(2))
        with torch.no_grad():
            for part in micro_batches(flat, batch.rows, self.config.micro_batch_tokens):
                values = policy(batch, flat, part)
                logprob[part.tokens], entropy[part.tokens] = (v.float().cpu() for v in values)
        return _unflatten(logprob, batch), _unflatten(entropy, batch)

    def _update(self, batch: Batch, moment: Moment) -> Update:
        batch = self.algorithm.prepare(self._with_scores(self.algorithm.select(batch)))
        fresh = batch.old_logprob is None
        if fresh:
            batch = batch.with_(
                old_logprob=torch.zeros_like(batch.rollout_logprob), old_entropy=batch.rollout_entropy.clone()
            )
        terms = self.algorithm.bind(moment, batch)
        lr = learning_rate(self.optimiser.config, moment.iteration, moment.total)
        flat, totals = Flat.of(batch), _Totals()
        for rows in self._mini_batches(batch, moment):
            self._step(batch, flat, rows, terms, totals, fresh=fresh, lr=lr)
        self.algorithm.observe(batch)
        return Update(batch, _metrics(terms, totals, lr) | dict(batch.notes))

    def _with_scores(self, batch: Batch) -> Batch:
        """Fill the columns that a pass before the update must give; `old_logprob` stays `None` if the update's own
        forward pass will give the same numbers."""
        if self.reference is not None and "ref_logprob" in self.algorithm.requires:
            batch = batch.with_(ref_logprob=self.score(batch, self.reference)[0])
        if self.config.old_logprobs == "rollout":
            return batch.with_(old_logprob=batch.rollout_logprob, old_entropy=batch.rollout_entropy)
        if self.config.mini_batches * self.config.epochs == 1 and "scored" not in self.algorithm.requires:
            return batch
        logprob, entropy = self.score(batch)
        if batch.kept is not None:  # rows that were left out have the engine's numbers, as those without advantage do
            logprob = torch.where(batch.trained, logprob, batch.rollout_logprob)
            entropy = torch.where(batch.trained, entropy, batch.rollout_entropy)
        return batch.with_(old_logprob=logprob, old_entropy=entropy)

    def _mini_batches(self, batch: Batch, moment: Moment) -> Iterator[Tensor]:
        """Rows [b] of each mini-batch: whole episodes, in a new random order each epoch."""
        known = number(batch.traj[batch.rows]).known
        for epoch in range(self.config.epochs):
            order = torch.from_numpy(permutation(len(known), self.seed, "mini-batches", moment.iteration, epoch))
            for part in known[order].tensor_split(self.config.mini_batches):
                rows = batch.rows[torch.isin(batch.traj[batch.rows], part)]
                if len(rows):
                    yield rows

    def _step(
        self,
        batch: Batch,
        flat: Flat,
        rows: Tensor,
        terms: tuple[BoundTerm, ...],
        totals: _Totals,
        *,
        fresh: bool,
        lr: float,
    ) -> None:
        weights = _weights(terms, batch, rows)
        if self.algorithm.drop_uniform_groups:
            assert batch.advantage is not None
            rows = rows[(batch.advantage[rows] != 0).any(1)]
        for part in micro_batches(flat, rows, self.config.micro_batch_tokens):
            loss = self._loss(batch, flat, part, terms, weights, totals, fresh=fresh)
            totals.loss += float(loss.detach())
            if not math.isfinite(totals.loss):
                raise TrainingError(f"the loss is {totals.loss}")
            loss.backward()  # type: ignore[no-untyped-call]
            totals.read += int(flat.span[part.rows].sum())
        if len(rows):
            norm = self.optimiser.step(lr)
            if not math.isfinite(norm):
                raise TrainingError(f"the gradient norm is {norm}")
            totals.norms.append(norm)

    def _loss(
        self,
        batch: Batch,
        flat: Flat,
        part: MicroBatch,
        terms: tuple[BoundTerm, ...],
        weights: dict[str, Tensor],
        totals: _Totals,
        *,
        fresh: bool,
    ) -> Tensor:
        """The micro-batch's part of the mini-batch's loss, a float64 scalar."""
        logprob, entropy = self.policy(batch, flat, part)
        where = flat.row[part.tokens], flat.column[part.tokens]
        if fresh:
            assert batch.old_logprob is not None
            assert batch.old_entropy is not None
            batch.old_logprob[where] = logprob.detach().float().cpu()
            batch.old_entropy[where] = entropy.detach().float().cpu()
        tokens = self.algorithm.shape_tokens(_gather(batch, where, logprob, entropy))
        totals.tokens += len(logprob)
        loss = logprob.new_zeros((), dtype=torch.float64)
        for term in terms:
            values = term.value(tokens)
            weight = weights[term.name][where].to(values.value.device)
            weighted = (values.value.double() * weight).sum()
            loss = loss + weighted
            totals.add(totals.terms, term.name, weighted)
            for name, value in values.diagnostics.items():
                totals.add(totals.diagnostics, name, value.double().sum())
        return loss


def _weights(terms: tuple[BoundTerm, ...], batch: Batch, rows: Tensor) -> dict[str, Tensor]:
    """Per term, [B, T] float64: the weights of the mini-batch `rows`, 0 in all other rows."""
    chosen = torch.zeros(len(batch.ids), dtype=torch.bool)
    chosen[rows] = True
    mini = batch.with_(mask=batch.mask & chosen[:, None])
    return {term.name: term.weights(mini) for term in terms}


def _gather(batch: Batch, where: tuple[Tensor, Tensor], logprob: Tensor, entropy: Tensor) -> Tokens:
    def column(values: Tensor | None) -> Tensor:
        assert values is not None
        return values[where].to(logprob.device)

    return Tokens(
        logprob=logprob,
        entropy=entropy,
        old_logprob=column(batch.old_logprob),
        rollout_logprob=column(batch.rollout_logprob),
        advantage=column(batch.advantage),
        step_id=column(batch.step_id),
        ref_logprob=None if batch.ref_logprob is None else column(batch.ref_logprob),
        row=where[0].to(logprob.device),
    )


def _unflatten(values: Tensor, batch: Batch) -> Tensor:
    full = torch.zeros(batch.shape)
    full[batch.mask] = values
    return full


def _metrics(terms: tuple[BoundTerm, ...], totals: _Totals, lr: float) -> dict[str, float | None]:
    """Means over the optimiser steps, and over the tokens of all of them."""
    steps = max(1, len(totals.norms))
    metrics: dict[str, float | None] = {"loss": totals.loss / steps}
    for term in terms:
        metrics[term.name] = totals.terms.get(term.name, 0.0) / (term.coefficient * steps)
        metrics.update(term.log)
    metrics |= {name: value / max(1, totals.tokens) for name, value in totals.diagnostics.items()}
    norm = math.fsum(totals.norms) / steps
    return metrics | {"grad_norm": norm, "lr": lr, "tokens_trained": totals.read}
