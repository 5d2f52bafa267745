"""The parity probe: do engine and learner have the same weights?

Engines keep weights in shapes of their own, and prefixes of what they read. Whatever goes wrong there (a tied output
head that stays what it was, a cache that outlives its weights, a tensor that was never handed over) shows in the
samples' log-probs, but nowhere as an error: a run learns from another policy than it plays with. So after each
hand-over the engine continues a few fixed prompts, and the learner's model scores what it sampled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from palaestra.agents.engines.base import Completion, Engine, Request, SamplingParams
from palaestra.errors import TrainingError

LENGTHS = (5, 12, 24, 48)
"""Tokens of the prompts."""
TOKENS = 4
"""Tokens that each is continued by."""


class Told(NamedTuple):
    """What the learner says of a completion."""

    request: Request
    ids: Sequence[int]
    logprobs: Tensor
    """Nats, [len(ids)]."""
    entropies: Tensor
    """Nats, [len(ids)]."""


class Parity(NamedTuple):
    """Largest differences between engine and learner, nats."""

    logprob: float
    entropy: float
    """0 where the engine tells no entropies."""


async def check_parity(engine: Engine, model: nn.Module, *, tolerance: float) -> Parity:
    """Compare engine and learner on fixed prompts, in their own vocabulary.

    Args:
        engine: has been handed the weights of `model`.
        model: a causal language model of transformers, the learner's.
        tolerance: the largest difference that rounding explains, nats.

    Raises:
        TrainingError: they disagree by more.
    """
    return (await _probed(engine, model, tolerance))[0]


async def _probed(engine: Engine, model: nn.Module, tolerance: float) -> tuple[Parity, list[Told]]:
    """As `check_parity`; and what the learner says of what was sampled."""
    requests = probes(int(model.config.vocab_size), engine.context_length)  # type: ignore[union-attr, arg-type]
    completions = await asyncio.gather(*map(engine.generate, requests))
    told = _told(model, requests, completions)
    parity = _compared(told, completions)
    _refuse(parity, engine, tolerance)
    return parity, told


def _refuse(parity: Parity, engine: Engine, tolerance: float) -> None:
    if not max(parity) <= tolerance:
        raise TrainingError(
            f"engine and learner disagree on the same tokens under weights {engine.weight_version}: log-probs by "
            f"{parity.logprob:.3g}, entropies by {parity.entropy:.3g} (rounding explains {tolerance:g}); the engine "
            f"kept other weights than it was given. Nothing was learnt from it; use another engine.kind or "
            f"engine.transfer, or raise engine.parity if the difference is that of the precision"
        )


def probes(vocabulary: int, context: int) -> list[Request]:
    """The fixed prompts, of ids that are spread over the vocabulary; each with draws of its own."""
    requests = []
    for seed, length in enumerate(LENGTHS):
        ids = [(7 + 1009 * (k + 1) * (seed + 1)) % vocabulary for k in range(min(length, context - TOKENS))]
        requests.append(Request(prompt=ids, sampling=SamplingParams(max_tokens=TOKENS, seed=seed)))
    return requests


@torch.no_grad()
def measured(model: nn.Module, requests: Sequence[Request], completions: Sequence[Completion]) -> Parity:
    """Largest differences over all tokens of requests without constraints."""
    return _compared(_told(model, requests, completions), completions)


@torch.no_grad()
def scores(
    model: nn.Module, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy (nats, [len(ids)] float64) of `ids` after `prompt`, by a plain forward pass; temperature 0
    counts as 1."""
    device = next(model.parameters()).device
    row = torch.tensor([[*prompt, *ids]], device=device)
    logits = model(row).logits[0, len(prompt) - 1 : -1].double() / (temperature or 1.0)
    logp = logits.log_softmax(-1)
    chosen = logp.gather(1, row[0, len(prompt) :, None])[:, 0]
    return chosen.cpu(), torch.special.entr(logp.exp()).sum(-1).cpu()


def _told(model: nn.Module, requests: Sequence[Request], completions: Sequence[Completion]) -> list[Told]:
    return [
        Told(request, completion.ids, *scores(model, request.prompt, completion.ids, request.sampling.temperature))
        for request, completion in zip(requests, completions, strict=True)
    ]


def _compared(told: Sequence[Told], completions: Sequence[Completion]) -> Parity:
    """Largest differences over the tokens up to the first one that is another."""
    logprob = entropy = 0.0
    for (_, ids, logprobs, entropies), completion in zip(told, completions, strict=True):
        same = next(
            (k for k, pair in enumerate(zip(ids, completion.ids, strict=False)) if pair[0] != pair[1]), len(ids)
        )
        logprob = max(logprob, _apart(logprobs[:same], completion.logprobs[:same]))
        if completion.entropies:
            entropy = max(entropy, _apart(entropies[: same + 1], completion.entropies[: same + 1]))
    return Parity(logprob, entropy)


def _apart(one: Tensor, other: Sequence[float]) -> float:
    """Largest difference; infinite where one is no number."""
    apart = float((one - torch.tensor(other, dtype=torch.float64)).abs().max()) if len(one) else 0.0
    return apart if math.isfinite(apart) else math.inf


class ProbedEngine:
    """An `Engine` that is compared with the learner after each hand-over of weights."""

    def __init__(self, engine: Engine, model: nn.Module, *, tolerance: float) -> None:
        """Args:
        engine: the one that samples.
        model: whose weights it is handed.
        tolerance: as `check_parity`.
        """
        self.engine, self._model, self._tolerance = engine, model, tolerance
        self.parity: Parity | None = None
        """As last measured."""
        self._told: list[Told] = []
        """After the last hand-over; the learner has gone on since."""

    @property
    def weight_version(self) -> int:
        """Version of the weights in use; starts at 0."""
        return self.engine.weight_version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self.engine.context_length

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt."""
        return await self.engine.generate(request)

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Hand over, and compare.

        Raises:
            TrainingError: engine and learner disagree.
        """
        await self.engine.update_weights(weights, version)
        self.parity, self._told = await _probed(self.engine, self._model, self._tolerance)

    async def check_again(self, engine: Engine) -> None:
        """Compare an engine that was started in place of the other with what the learner said at the last hand-over:
        from the same weights and seeds it samples the same.

        Raises:
            TrainingError: it has other weights.
        """
        completions = await asyncio.gather(*(engine.generate(each.request) for each in self._told))
        _refuse(_compared(self._told, completions), engine, self._tolerance)

    async def release(self, session: str) -> None:
        """Forget a conversation."""
        await self.engine.release(session)

    async def close(self) -> None:
        """Free the engine."""
        await self.engine.close()
