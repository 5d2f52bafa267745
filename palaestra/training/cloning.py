"""Behaviour cloning and pre-training: learning to write what was written in recorded play.

An episode becomes one token sequence with a weight per token; the loss is the weighted mean of cross-entropies. Weight
on the actions alone is behaviour cloning; some weight on the observations too teaches a young model to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from palaestra.agents.chat import ChatFormat
from palaestra.config import OptimiserConfig
from palaestra.errors import TrainingError
from palaestra.training.forward import PolicyModel
from palaestra.training.optimiser import Optimiser, learning_rate
from palaestra.training.shuffle import permutation
from palaestra.trajectories.record import Trajectory


@dataclass(frozen=True, slots=True)
class WeightedRow:
    """One token sequence to imitate."""

    ids: Sequence[int]
    weights: Sequence[float]
    """Of each token in the loss, at least 0; that of the first does not count, as nothing predicts it."""


@dataclass(frozen=True, slots=True)
class CloningBatch:
    """Rows padded on the right."""

    ids: Tensor
    """[B, T] int64; 0 in the padding."""
    weights: Tensor
    """[B, T] float32; 0 in the padding."""


def encode_play(
    trajectory: Trajectory,
    chat: ChatFormat,
    *,
    observation_weight: float = 0.0,
    action_weight: float = 1.0,
    system: str | None = None,
) -> WeightedRow:
    """A recorded episode of any agent as the conversation that a language agent would have had.

    Args:
        trajectory: its steps' observations and actions are used, not its tokens, so that play of scripted agents and
            oracles will do.
        chat: the format of the model that is to learn.
        observation_weight: of the tokens that the environment wrote.
        action_weight: of the action's tokens, end token included.
        system: the system message of the agent.
    """
    parts = [Part(chat.system(system), 0.0)]
    for turn in _turns(trajectory, chat, observation_weight, action_weight):
        parts += turn
    return _joined(parts[:-1] if trajectory.steps else parts)


def encode_windows(
    trajectory: Trajectory, chat: ChatFormat, turns: int, *, observation_weight: float = 0.0, system: str | None = None
) -> list[WeightedRow]:
    """A recorded episode as a language agent with `WindowContext(turns)` would have had it: a row for each step.

    In each row only the last observation and action have weight; see `encode_play`.
    """
    told = _turns(trajectory, chat, observation_weight, 1.0)
    rows = []
    for last, turn in enumerate(told):
        start = max(0, last - turns + 1)
        past = [*told[0][:1]] * (start > 0) + [part for earlier in told[start:last] for part in earlier]
        quiet = [part._replace(weight=0.0) for part in (Part(chat.system(system), 0.0), *past)]
        rows.append(_joined([*quiet, *turn[:-1]]))
    return rows


class Part(NamedTuple):
    """Tokens of equal weight."""

    ids: Sequence[int]
    weight: float


def _turns(trajectory: Trajectory, chat: ChatFormat, observed: float, done: float) -> list[list[Part]]:
    """Of each step the observation, what makes the model answer, the answer, and what closes it."""
    turns = []
    for step in trajectory.steps:
        said = chat.completion(step.action)
        shown, close = chat.user(step.observation), chat.close_completion(said)
        turns.append([Part(shown, observed), Part(chat.generation, 0.0), Part(said, done), Part(close, 0.0)])
    return turns


def _joined(parts: Sequence[Part]) -> WeightedRow:
    ids = [token for part in parts for token in part.ids]
    return WeightedRow(ids, [part.weight for part in parts for _ in part.ids])


def cloning_batches(
    rows: Sequence[WeightedRow], *, tokens: int, seed: int = 0, epochs: int | None = 1
) -> Iterator[CloningBatch]:
    """Batches of rows of like length and at most `tokens` padded tokens, in a new random order each epoch.

    `epochs=None` never ends.
    """
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    parts: list[list[int]] = [[]]
    for index in by_length:
        if parts[-1] and (len(parts[-1]) + 1) * len(rows[index].ids) > tokens:
            parts.append([])
        parts[-1].append(index)
    epoch = 0
    while rows and (epochs is None or epoch < epochs):
        for number in permutation(len(parts), seed, "cloning", epoch):
            yield pad_rows([rows[i] for i in parts[number]])
        epoch += 1


def pad_rows(rows: Sequence[WeightedRow]) -> CloningBatch:
    """Rows as one padded batch."""
    shape = len(rows), max(len(row.ids) for row in rows)
    ids, weights = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weights[i, : len(row.ids)] = torch.tensor(row.weights, dtype=torch.float32)
    return CloningBatch(ids, weights)


def cloning_loss(policy: PolicyModel, batch: CloningBatch) -> Tensor:
    """Weighted mean cross-entropy, a scalar in nats a token. Logits are made only where there is weight."""
    device = policy.device
    weights = batch.weights[:, 1:].to(device)
    used = weights > 0
    hidden = policy.hidden(batch.ids[:, :-1])[used]
    head = policy.head
    with torch.autocast(device.type, dtype=policy.autocast, enabled=policy.autocast is not None):
        logits = policy.shape(F.linear(hidden, head.weight, head.bias))
    nats = F.cross_entropy(logits.float(), batch.ids[:, 1:].to(device)[used], reduction="none")
    weight = weights[used]
    return (nats * weight).sum() / weight.sum()


def clone(
    model: Any,
    batches: Iterable[CloningBatch],
    optimiser: OptimiserConfig,
    *,
    steps: int,
    autocast: torch.dtype | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train `model` in place on up to `steps` batches, one step each; the schedule spans `steps`.

    Args:
        model: a transformers causal language model.
        batches: from `cloning_batches`, for example.
        optimiser: AdamW and its schedule.
        steps: most steps.
        autocast: `torch.bfloat16` computes matrix products in that.
        on_step: called with each step's number and loss.

    Returns:
        The loss of every step.

    Raises:
        TrainingError: a loss or a gradient is not finite; the step was not taken.
    """
    policy, adam, losses = PolicyModel(model, autocast=autocast), Optimiser(model, optimiser), list[float]()
    for step, batch in zip(range(steps), batches, strict=False):
        loss = cloning_loss(policy, batch)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"cloning step {step}: the loss is {losses[-1]}")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = adam.step(learning_rate(optimiser, step, steps))
        if not math.isfinite(norm):
            raise TrainingError(f"cloning step {step}: the gradient norm is {norm}")
        if on_step:
            on_step(step, losses[-1])
    return losses
