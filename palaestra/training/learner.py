"""The learner: one iteration's batch in, better weights out.

    filters → score (old log-probs, reference) → advantage, shapers, selectors
            → mini-batches of whole episodes, each with what is replayed
            → gates → micro-batches → backward → step

A mini-batch's loss is a sum over tokens whose weights hold the global denominators, and gates have seen all of its
tokens, so how it is cut into micro-batches, or shared among ranks, changes nothing but memory and time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from palaestra.agents.attention import use_plain_attention
from palaestra.config import LearnerConfig, OptimiserConfig
from palaestra.errors import CheckpointError, ConfigError, TrainingError
from palaestra.training.algorithm import Algorithm
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import blend, load_weights
from palaestra.training.compiled import compile_layers
from palaestra.training.forward import Flat, MicroBatch, PolicyModel, Scores, arranged, micro_batches
from palaestra.training.layout import Arrangement
from palaestra.training.lora import has_lora, without_lora
from palaestra.training.numbering import number
from palaestra.training.optimiser import Optimiser, learning_rate
from palaestra.training.ranks import add_up, added_up, most, rank, ranks, share
from palaestra.training.recompute import recompute_activations
from palaestra.training.seams import BoundTerm, Extra, Moment, Statistic
from palaestra.training.sharding import Whole, publish, shard, whole_tensors
from palaestra.training.shuffle import permutation
from palaestra.training.step import Marked, Source, Totals, gather, mark
from palaestra.training.tree_attention import reading_cost, require_trees

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Update:
    """What an iteration's update was."""

    batch: Batch
    """With advantage and the old policy's columns."""
    metrics: dict[str, float | None]
    """`loss`, the aggregated value of each term, means of diagnostics, `grad_norm`, `lr`, `tokens_trained`."""


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
        self.playing = model
        """The whole model, with the present weights after every update: what engines play with."""
        self.sharded = self.config.shard and ranks() > 1
        own = copy.deepcopy(model) if self.sharded else model
        if self.sharded and own.device.type == "cpu":  # as the engine does with the model that it shares
            use_plain_attention(own)
        self.policy = PolicyModel(own, autocast=dtype)
        self.seed = seed
        self.reference = None if reference is None else PolicyModel(reference, autocast=dtype)
        if self.reference is not None and reference is model and has_lora(model):
            if algorithm.parts.reference is not None:
                raise ConfigError("model.lora: the reference is the model without adapters, which nothing can renew")
            self.reference.around = partial(without_lora, self.policy.model)
            self.reference.model, self.reference.trunk = self.policy.model, self.policy.trunk
            self.reference.head = self.policy.head
        if "ref_logprob" in algorithm.requires and self.reference is None:
            raise ConfigError(f"algorithm {algorithm.name!r} needs a reference model, for a KL term for example")
        own.eval()
        if self.config.gradient_checkpointing:
            recompute_activations(own)
        self.arrangement = _arrangement(self.config, own)
        make = algorithm.parts.critic
        self.critic = None if make is None else make(self.policy, self.config)
        if self.sharded:
            self._shard()
        if self.config.compile:
            compile_layers(self.policy, own=self.sharded)
        if self.config.offload in ("activations", "both"):
            self.policy.around = partial(save_on_cpu, pin_memory=self.policy.device.type == "cuda")
        offload = self.config.offload in ("optimiser", "both")
        self.optimiser = Optimiser(own, optimiser or OptimiserConfig(), offload=offload and not self.sharded)

    def update(self, batch: Batch, moment: Moment) -> Update:
        """Train on one iteration's episodes.

        Raises:
            TrainingError: loss or gradient is not finite. No step was taken with it.
        """
        try:
            update = self._update(batch, moment)
            self.publish()
            return update
        except TrainingError as error:
            self.optimiser.clear()
            if self.critic is not None:
                self.critic.clear()
            raise TrainingError(f"iteration {moment.iteration}: {error}; the last checkpoint is untouched") from error

    def publish(self) -> None:
        """Give the playing model the present weights; every rank must ask."""
        if self.sharded:
            publish(self.policy.model, into=self.playing)

    def _shard(self) -> None:
        """Spread the policy, and the reference where there is one, over the ranks."""
        if getattr(getattr(self.critic, "plan", None), "trunk", "") == "policy":
            raise ConfigError("learner.shard: a critic on the policy's own trunk needs it whole; give it another trunk")
        self.policy.whole = self._spread(self.policy)
        if self.reference is not None:
            same = self.reference.model is self.policy.model
            self.reference.whole = self.policy.whole if same else self._spread(self.reference)

    def _spread(self, policy: PolicyModel) -> Whole:
        offload = self.config.offload in ("optimiser", "both") and policy.device.type == "cuda"
        return shard(policy.model, autocast=policy.autocast, offload=offload)

    def more_tensors(self) -> dict[str, dict[str, Tensor]]:
        """What checkpoints hold beside the policy and its optimiser, by name of the file."""
        tensors = {} if self.critic is None else {"critic": self.critic.state_tensors()}
        if self.algorithm.parts.reference is not None and self.reference is not None:
            tensors["reference"] = whole_tensors(dict(self.reference.model.named_parameters()))
        return tensors

    def load_more_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put back what `more_tensors` gave.

        Raises:
            CheckpointError: there is no such thing, or it is another's.
        """
        if self.critic is not None:
            if "critic" not in tensors:
                raise CheckpointError("the checkpoint has no critic; begin anew with another out=")
            self.critic.load_state_tensors(tensors["critic"])
        if self.algorithm.parts.reference is not None and self.reference is not None:
            if "reference" not in tensors:
                raise CheckpointError("the checkpoint has no reference model; begin anew with another out=")
            load_weights(self.reference.model, tensors["reference"])

    def score(
        self,
        batch: Batch,
        policy: PolicyModel | None = None,
        rows: Tensor | None = None,
        statistics: Sequence[Statistic] = (),
    ) -> Scores:
        """What the present weights (or another policy) say of the policy tokens of `rows` (all that were kept); columns
        [B, T] float32, 0 elsewhere."""
        policy, flat = policy or self.policy, Flat.of(batch)
        rows = batch.rows if rows is None else rows
        names = ["logprob", "entropy", *(statistic.name for statistic in statistics)]
        columns = {name: torch.zeros(len(flat.row)) for name in names}
        with torch.no_grad():
            for part in self._parts(batch, flat, rows, policy):
                if part is None:
                    policy.idle()
                    continue
                scores = policy(batch, flat, part, statistics)
                for name, values in {"logprob": scores[0], "entropy": scores[1], **scores[2]}.items():
                    columns[name][part.tokens] = values.float().cpu()
        add_up(columns.values())
        full = {name: _unflatten(values, batch) for name, values in columns.items()}
        return Scores(full.pop("logprob"), full.pop("entropy"), full)

    def prepared(self, batch: Batch, moment: Moment) -> Batch:
        """An iteration's batch as its update sees it: filtered, with what the old policy, the reference and others say
        of it, and with its advantages."""
        batch = self._with_scores(self.algorithm.select(batch, moment))
        batch = self._with_recalled(self._with_provided(batch, moment), moment)
        return self.algorithm.prepare(batch if self.critic is None else self.critic.evaluate(batch), moment)

    def _update(self, batch: Batch, moment: Moment) -> Update:
        algorithm = self.algorithm
        batch = self.prepared(batch, moment)
        fresh = batch.old_logprob is None
        if fresh:
            batch = batch.with_(old_logprob=batch.rollout_logprob.clone(), old_entropy=batch.rollout_entropy.clone())
        terms, gates = algorithm.bind(moment, batch), algorithm.parts.gates
        lr = learning_rate(self.optimiser.config, moment.iteration, moment.total)
        flat, totals = Flat.of(batch), Totals()
        parts = list(self._mini_batches(batch, moment))
        replayed = algorithm.replayed(batch, moment, len(parts))
        for number_, (rows, extras) in enumerate(zip_longest(parts, replayed)):
            own = [] if rows is None else [Source(batch, flat, rows, terms, gates, fresh=fresh)]
            sources = [*own, *map(_source, extras)]
            self._step(sources, totals, replace(moment, step=number_), lr)
        algorithm.observe(batch, moment)
        metrics = _metrics(terms, totals, lr) | dict(batch.notes) | self._renew_reference(batch, moment)
        return Update(batch, metrics)

    def _with_scores(self, batch: Batch) -> Batch:
        """Fill the columns that a pass before the update must give; `old_logprob` stays `None` if the update's own
        forward pass will give the same numbers."""
        requires, config = self.algorithm.requires, self.config
        if self.reference is not None and "ref_logprob" in requires:
            batch = batch.with_(ref_logprob=self.score(batch, self.reference).logprob)
        if config.old_logprobs == "rollout":
            return batch.with_(old_logprob=batch.rollout_logprob, old_entropy=batch.rollout_entropy)
        if config.mini_batches * config.epochs == ranks() == 1 and "scored" not in requires:
            return batch
        logprob, entropy, extra = self.score(batch, statistics=self.algorithm.parts.statistics)
        if batch.kept is not None:  # rows that were left out have the engine's numbers, as those without advantage do
            logprob = torch.where(batch.trained, logprob, batch.rollout_logprob)
            entropy = torch.where(batch.trained, entropy, batch.rollout_entropy)
        return batch.with_(old_logprob=logprob, old_entropy=entropy, extra=extra)

    def _with_provided(self, batch: Batch, moment: Moment) -> Batch:
        """Add what the algorithm's providers say."""
        for provider in self.algorithm.parts.providers:
            batch = batch.with_(extra={**batch.extra, **provider(batch, moment, self._log_probs)})
        return batch

    def _log_probs(self, batch: Batch, model: Any = None, rows: Tensor | None = None) -> Tensor:
        """As `palaestra.training.providers.Score`."""
        policy = None if model is None else PolicyModel(model, autocast=_DTYPES[self.config.autocast])
        return self.score(batch, policy, rows).logprob

    def _renew_reference(self, batch: Batch, moment: Moment) -> dict[str, float | None]:
        """Move the reference if its manager says so."""
        manager = self.algorithm.parts.reference
        if manager is None or self.reference is None:
            return {}
        renewal = manager(batch, moment)
        if renewal is not None:
            blend(self.policy.model, into=self.reference.model, share=renewal.share)
            if renewal.optimiser:
                self.optimiser.load_state_tensors({})
        return {"reference_renewed": float(renewal is not None)}

    def _with_recalled(self, batch: Batch, moment: Moment) -> Batch:
        """Score what trackers want to know about rows of earlier iterations."""
        recalled = self.algorithm.recalled(batch, moment)
        for name, rows in recalled.items():
            scores = self.score(rows)
            recalled[name] = rows.with_(old_logprob=scores.logprob, old_entropy=scores.entropy)
        return batch.with_(recalled=recalled) if recalled else batch

    def _mini_batches(self, batch: Batch, moment: Moment) -> Iterator[Tensor]:
        """Rows [b] of each mini-batch: whole episodes, in a new random order each epoch."""
        known = number(batch.traj[batch.rows]).known
        for epoch in range(self.config.epochs):
            order = torch.from_numpy(permutation(len(known), self.seed, "mini-batches", moment.iteration, epoch))
            for part in known[order].tensor_split(self.config.mini_batches):
                rows = batch.rows[torch.isin(batch.traj[batch.rows], part)]
                if len(rows):
                    yield rows

    def _step(self, sources: Sequence[Source], totals: Totals, moment: Moment, lr: float) -> None:
        if self.critic is not None and not sources[0].name:
            totals.note(self.critic.learn(sources[0].batch, sources[0].rows, moment))
        trained = loss = 0.0
        for source in sources:
            marked = self._marked(source, moment)
            totals.begin(source, marked)
            weights, rows = source.weights(), source.rows
            if self.algorithm.drop_uniform_groups and not source.name:
                assert source.batch.advantage is not None
                rows = rows[(source.batch.advantage[rows] != 0).any(1)]
            trained += len(rows)
            for part in self._parts(source.batch, source.flat, rows, self.policy):
                if part is None:
                    self.policy.idle().backward()  # type: ignore[no-untyped-call]
                    continue
                value = self._loss(source, part, weights, marked, totals)
                loss += float(value.detach())
                value.backward()  # type: ignore[no-untyped-call]
                totals.read += part.read(source.flat)
        loss = added_up({"loss": loss})["loss"]
        totals.loss += loss
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss}")
        if trained:
            self.optimiser.add_up_gradients()
            norm = self.optimiser.step(lr)
            if not math.isfinite(norm):
                raise TrainingError(f"the gradient norm is {norm}")
            totals.norms.append(norm)

    def _parts(self, batch: Batch, flat: Flat, rows: Tensor, policy: PolicyModel) -> Iterable[MicroBatch | None]:
        """This rank's micro-batches of `rows` [b]. Where weights are spread over the ranks, all compute as often as
        the one that has most: `None` stands for a pass with nothing to compute."""
        budget = self.config.micro_batch_tokens
        if self.arrangement is None or policy not in (self.policy, self.reference):
            parts = micro_batches(flat, share(rows), budget)
        else:
            parts = arranged(batch, flat, rows, budget, self.arrangement, (rank(), ranks()))
        if policy.whole is None:
            return parts
        some = list(parts)
        return [*some, *[None] * (most(len(some)) - len(some))]

    def _marked(self, source: Source, moment: Moment) -> Marked:
        """What the gates say. Before the iteration's first step, the present policy is the old one."""
        if not source.gates:
            return Marked()
        batch = source.batch
        if moment.step == 0 and not source.name:
            assert batch.old_logprob is not None
            assert batch.old_entropy is not None
            present = Scores(batch.old_logprob, batch.old_entropy, batch.extra)
        else:
            present = self.score(batch, rows=source.rows, statistics=self.algorithm.parts.statistics)
        chosen = source.flat.tokens_of(source.rows)
        where = source.flat.row[chosen], source.flat.column[chosen]
        extra = {name: values[where] for name, values in present.extra.items()}
        return mark(source, Scores(present.logprob[where], present.entropy[where], extra), moment)

    def _loss(
        self, source: Source, part: MicroBatch, weights: dict[str, Tensor], marked: Marked, totals: Totals
    ) -> Tensor:
        """The micro-batch's part of the step's loss, a float64 scalar."""
        batch, flat, prefix = source.batch, source.flat, source.prefix
        statistics = [statistic for statistic in self.algorithm.parts.statistics if statistic.gradient]
        scores = self.policy(batch, flat, part, statistics)
        where = flat.row[part.tokens], flat.column[part.tokens]
        if source.fresh:
            assert batch.old_logprob is not None
            assert batch.old_entropy is not None
            batch.old_logprob[where] = scores.logprob.detach().float().cpu()
            batch.old_entropy[where] = scores.entropy.detach().float().cpu()
        tokens = marked.on(gather(batch, where, scores), where)
        if not source.name:  # what is replayed has its advantages already
            tokens = self.algorithm.shape_tokens(tokens)
        totals.tokens[prefix] = totals.tokens.get(prefix, 0) + len(scores.logprob)
        loss = scores.logprob.new_zeros((), dtype=torch.float64)
        for term in source.terms:
            values = term.value(tokens)
            weight = weights[term.name][where].to(values.value.device)
            weighted = (values.value.double() * weight).sum()
            loss = loss + weighted
            _add(totals.terms, prefix + term.name, weighted.detach() / term.coefficient)
            for name, value in values.diagnostics.items():
                if value.dtype == torch.bool:
                    totals.shares.add(prefix + name)
                _add(totals.diagnostics, prefix + name, value.detach().double().sum())
        return loss


def _arrangement(config: LearnerConfig, model: Any) -> Arrangement | None:
    """How rows become sequences; `None`: each is one.

    Raises:
        ConfigError: the model cannot read several in one sequence.
    """
    if config.merge_prefixes == "never" and not config.packing:
        return None
    require_trees(model, "learner.packing" if config.packing else "learner.merge_prefixes")
    return Arrangement(reading_cost(model), config.merge_prefixes, config.packing)


def _source(extra: Extra) -> Source:
    return Source(extra.batch, Flat.of(extra.batch), extra.batch.rows, extra.terms, extra.gates, extra.name)


def _add(into: dict[str, float], name: str, value: Tensor) -> None:
    into[name] = into.get(name, 0.0) + float(value)


def _unflatten(values: Tensor, batch: Batch) -> Tensor:
    full = torch.zeros(batch.shape)
    full[batch.mask] = values
    return full


def _metrics(terms: Sequence[BoundTerm], totals: Totals, lr: float) -> dict[str, float | None]:
    """Means over the optimiser steps, and over the tokens of all of them."""
    steps = max(1, len(totals.norms))
    metrics: dict[str, float | None] = {"loss": totals.loss / steps}
    summed = added_up(totals.terms)
    metrics |= {name: summed.get(name, 0.0) / count for name, count in totals.steps.items()}
    metrics |= {name: value / totals.steps[name] for name, value in totals.gates.items()}
    for term in terms:
        metrics.update(term.log)
    tokens = added_up({prefix: float(count) for prefix, count in totals.tokens.items()})
    shares = added_up(dict.fromkeys(totals.shares, 1.0))
    for name, value in added_up(totals.diagnostics).items():
        prefix = max((p for p in tokens if name.startswith(p)), key=len)
        metrics[name] = value / max(1.0, totals.every[prefix] if name in shares else tokens[prefix])
    read = int(added_up({"read": float(totals.read)})["read"])
    norm = math.fsum(totals.norms) / steps
    return metrics | {"grad_norm": norm, "lr": lr, "tokens_trained": read}
