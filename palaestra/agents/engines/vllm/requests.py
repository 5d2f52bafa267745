"""Our requests in vLLM's words, and its completions in ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.vllm.rule import FIELD, rule_of
from palaestra.agents.engines.vllm.transport import Raw, Span
from palaestra.errors import ConfigError, EngineError

COLDEST = 0.01
"""Lowest temperature above 0 that vLLM takes as it is."""


def parameters(request: Request, key: str, limit: int) -> dict[str, Any]:
    """vLLM's `SamplingParams`, by name. Nothing in them changes the distribution but the temperature: cuts and
    constraints are our processor's.

    Args:
        request: what is asked.
        key: its name in the ledger.
        limit: most tokens to sample.

    Raises:
        ConfigError: vLLM would sample at another temperature.
    """
    sampling = request.sampling
    if 0 < sampling.temperature < COLDEST:
        raise ConfigError(f"vLLM samples at temperature 0 or from {COLDEST} upwards, not at {sampling.temperature}")
    return {
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "seed": sampling.seed % 2**63,
        "stop_token_ids": list(sampling.stop_ids),
        "ignore_eos": True,  # stop ids are all that ends a completion
        "logprobs": 0,
        "detokenize": False,
        "extra_args": {FIELD: msgspec.to_builtins(rule_of(request, key))},
    }


def completion(request: Request, raw: Raw, measured: Sequence[Sequence[float]], version: int) -> Completion:
    """What was sampled.

    Args:
        request: what was asked.
        raw: what vLLM says.
        measured: entropy and log share per token, or empty where they lack.
        version: of the weights, where vLLM does not tell.

    Raises:
        EngineError: a constraint was not obeyed, a cut was not measured, or a log-prob is not finite.
    """
    ids, allowed, over = _walk(request, raw.ids)
    sampling = request.sampling
    if sampling.cut and ids and not measured:
        raise EngineError("top_k and top_p need palaestra's logits processor in the server: start it as the guide says")
    logprobs = raw.logprobs[: len(ids)]
    if measured:
        logprobs = [logprob + share for logprob, (_, share) in zip(logprobs, measured, strict=False)]
    if not all(map(math.isfinite, logprobs)):
        raise EngineError("the model's logits are not finite; its weights may have diverged")
    versions = versions_of(raw.spans, len(ids), version)
    stopped = over or (bool(ids) and ids[-1] in sampling.stop_ids)
    return Completion(
        ids=ids,
        logprobs=[min(logprob, 0.0) for logprob in logprobs],
        entropies=[max(entropy, 0.0) for entropy, _ in measured[: len(ids)]],
        allowed=allowed,
        finish="stop" if stopped else "length",
        weight_version=versions[0] if versions else version,
        versions=versions if len(set(versions)) > 1 else None,
    )


def versions_of(spans: Sequence[Span], count: int, version: int) -> list[int]:
    """The weight version of each of `count` tokens; `version` where no span says another."""
    versions = [version] * count
    for span in spans:
        if span.label.isdecimal():
            versions[span.start : min(span.end, count)] = [int(span.label)] * (min(span.end, count) - span.start)
    return versions


def _walk(request: Request, ids: list[int]) -> tuple[list[int], list[list[int]] | None, bool]:
    """The ids up to the end of the constraint, what was allowed at each, and whether that end was reached."""
    trie = request.constraint
    if trie is None:
        return ids, None, False
    node, allowed = trie.root, list[list[int]]()
    for count, token in enumerate(ids):
        if not node:
            return ids[:count], allowed, True
        if token not in node:
            raise EngineError("a constraint was not obeyed: is palaestra's logits processor in the server?")
        allowed.append(trie.allowed(node))
        node = trie.child(node, token)
    return ids, allowed, not node
