"""An algorithm's loss for trainers whose optimiser loop is their own.

Such a trainer plays an iteration, hands over its rows, and asks for the loss of one micro-batch after the other; it
calls `backward` and takes the steps itself. What is computed is what `palaestra.training.learner` computes: gates,
weights with the denominators of the whole optimiser step, replayed batches, memory that moves after the updates.

    begin(batch, moment) → step(number, rows) → loss(rows of a micro-batch) ... → end()
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from palaestra.errors import CheckpointError, ConfigError, TrainingError
from palaestra.files import replace_text
from palaestra.training.algorithm import Algorithm
from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, MicroBatch, Scores, micro_batches
from palaestra.training.learner import Learner
from palaestra.training.seams import BoundTerm, Extra, Moment
from palaestra.training.step import Marked, Source, gather, mark

Forward = Callable[[Batch, Flat, MicroBatch], Scores]
"""Log-probs and entropies of a micro-batch's policy tokens, with gradient."""


STATE = "palaestra.json"
"""What a checkpoint of the trainer's holds of ours: the algorithm's memory."""


def save_memory(algorithm: Algorithm, folder: Path) -> None:
    """Beside what the trainer writes into its checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / STATE, json.dumps(algorithm.state_dict()))


def load_memory(algorithm: Algorithm, folder: Path) -> None:
    """What `save_memory` wrote. An algorithm that remembers nothing needs none.

    Raises:
        CheckpointError: there is none, or it is another algorithm's.
    """
    if (state := folder / STATE).is_file():
        algorithm.load_state_dict(json.loads(state.read_bytes()))
    elif algorithm.parts.trackers:
        raise CheckpointError(f"{folder} has no {STATE}: without it {algorithm.name} would forget what it has seen")


def check_algorithm(algorithm: Algorithm, trainer: str) -> None:
    """Refuse what another trainer's loop has no place for.

    Raises:
        ConfigError: naming it.
    """
    parts = algorithm.parts
    foreign = {
        "chooses the tasks": parts.chooser,
        "shares out the rollouts": parts.allocator,
        "asks for further groups": parts.refill,
        "trains a critic": parts.critic,
        "moves the reference model": parts.reference,
        "reads whole distributions": parts.statistics or None,
    }
    for does, part in foreign.items():
        if part is not None:
            raise ConfigError(
                f"algorithm {algorithm.name} {does}, which {trainer} does not leave to it: use `palaestra train`"
            )


@dataclass
class Step:
    """One optimiser step of an iteration."""

    algorithm: Algorithm
    own: Source
    """The iteration's rows that the step trains."""
    replayed: tuple[Source, ...]
    """Rows of earlier iterations."""
    budget: int
    """Padded tokens of one forward pass of replayed rows."""
    weights: dict[str, dict[str, Tensor]] = field(init=False)
    """[B, T] float64, by source and term: denominators and coefficient."""
    marked: dict[str, Marked] = field(default_factory=dict)
    """What gates say, by source."""
    values: dict[str, float] = field(default_factory=dict)
    """Of each term so far, coefficient taken out; for logs."""

    def __post_init__(self) -> None:
        """Denominators of the whole step, before it is cut."""
        self.weights = {source.name: source.weights() for source in (self.own, *self.replayed)}

    def loss(self, rows: Tensor, forward: Forward) -> Tensor:
        """The share that `rows` [b] have in the step's loss: a float64 scalar with gradient.

        The shares of a step add up to its loss, however it is cut.
        """
        return self._sum(self.own, rows, forward)

    def replayed_loss(self, forward: Forward) -> Tensor | None:
        """What replayed rows add to the step's loss; `None` where there are none."""
        losses = [self._sum(source, source.rows, forward) for source in self.replayed]
        return torch.stack(losses).sum() if losses else None

    def _sum(self, source: Source, rows: Tensor, forward: Forward) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for part in micro_batches(source.flat, rows, self.budget):
            loss = self.loss_of(source, part.tokens, forward(source.batch, source.flat, part))
            total = total.to(loss.device) + loss
        return total

    def loss_of(self, source: Source, chosen: Tensor, scores: Scores) -> Tensor:
        """The share of the policy tokens `chosen` [p], as positions in `source.flat`.

        Args:
            source: the step's own, or a replayed one.
            chosen: tokens of whole rows.
            scores: of these tokens, with gradient.
        """
        batch, flat = source.batch, source.flat
        where = flat.row[chosen], flat.column[chosen]
        if source.fresh:
            assert batch.old_logprob is not None
            assert batch.old_entropy is not None
            batch.old_logprob[where] = scores.logprob.detach().float().cpu()
            batch.old_entropy[where] = scores.entropy.detach().float().cpu()
        tokens = self.marked.get(source.name, Marked()).on(gather(batch, where, scores), where)
        if not source.name:  # what is replayed has its advantages already
            tokens = self.algorithm.shape_tokens(tokens)
        loss = scores.logprob.new_zeros((), dtype=torch.float64)
        for term in source.terms:
            weight = self.weights[source.name][term.name][where].to(scores.logprob.device)
            weighted = (term.value(tokens).value.double() * weight).sum()
            name = source.prefix + term.name
            self.values[name] = self.values.get(name, 0.0) + float(weighted.detach()) / term.coefficient
            loss = loss + weighted
        return loss


@dataclass
class Iteration:
    """What an algorithm makes of one iteration's episodes."""

    learner: Learner
    batch: Batch
    """With advantages and the old policy's columns."""
    flat: Flat
    terms: tuple[BoundTerm, ...]
    moment: Moment
    replays: Sequence[Sequence[Extra]]
    """Of each optimiser step."""
    fresh: bool
    """The old policy's log-probs are those of the update's own forward pass."""

    @property
    def log(self) -> dict[str, float]:
        """What plug-ins noted, and the iteration's constants."""
        noted = [self.batch.notes, *(term.log for term in self.terms)]
        return {name: value for each in noted for name, value in each.items() if value is not None}

    def step(self, number: int, rows: Tensor) -> Step:
        """Optimiser step `number` (from 0), which trains `rows` [b]; asked for when its turn has come, as gates look
        at the present weights."""
        learner, algorithm = self.learner, self.learner.algorithm
        kept = rows[torch.isin(rows, self.batch.rows)]
        own = Source(self.batch, self.flat, kept, self.terms, algorithm.parts.gates, fresh=self.fresh)
        extras = self.replays[number] if number < len(self.replays) else ()
        again = tuple(Source(e.batch, Flat.of(e.batch), e.batch.rows, e.terms, e.gates, e.name) for e in extras)
        step = Step(algorithm, own, again, learner.config.micro_batch_tokens)
        moment = replace(self.moment, step=number)
        step.marked = {source.name: self._marked(source, moment) for source in (own, *again) if source.gates}
        return step

    def _marked(self, source: Source, moment: Moment) -> Marked:
        """Before the iteration's first step, the present policy is the old one."""
        batch = source.batch
        if moment.step == 0 and not source.name:
            assert batch.old_logprob is not None
            assert batch.old_entropy is not None
            present = Scores(batch.old_logprob, batch.old_entropy, batch.extra)
        else:
            present = self.learner.score(batch, rows=source.rows)
        chosen = source.flat.tokens_of(source.rows)
        where = source.flat.row[chosen], source.flat.column[chosen]
        return mark(source, Scores(present.logprob[where], present.entropy[where], {}), moment)

    def end(self) -> None:
        """Move the algorithm's memory, after the iteration's last step."""
        self.learner.algorithm.observe(self.batch, self.moment)


def begin(learner: Learner, batch: Batch, moment: Moment) -> Iteration:
    """Prepare an iteration: filters, old log-probs where they are needed, reference, advantages.

    Args:
        learner: its algorithm and scoring passes are used, its optimiser is not.
        batch: from `build_rows`.
        moment: where training stands.

    Raises:
        TrainingError: a reward is not finite.
        ConfigError: the algorithm wants optimiser steps of its own.
    """
    batch = learner.prepared(batch, moment)
    fresh = batch.old_logprob is None
    if fresh:
        batch = batch.with_(old_logprob=batch.rollout_logprob.clone(), old_entropy=batch.rollout_entropy.clone())
    terms = learner.algorithm.bind(moment, batch)
    steps = learner.config.mini_batches * learner.config.epochs
    replays = learner.algorithm.replayed(batch, moment, steps)
    if any(replays[steps:]):
        raise ConfigError("self_imitation.separate_steps: the trainer takes no steps beyond its own; set it to false")
    return Iteration(learner, batch, Flat.of(batch), terms, moment, replays, fresh)


def require_one_row(batch: Batch) -> None:
    """Trainers that count a row per episode cannot take contexts that were cut.

    Raises:
        TrainingError: an episode has several rows.
    """
    if len(batch.traj) and int(batch.traj.bincount().max()) > 1:
        raise TrainingError("an episode is several rows, as its context was cut: use agent.context: full")


def means(values: Mapping[str, object]) -> dict[str, float]:
    """Those that are numbers."""
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
