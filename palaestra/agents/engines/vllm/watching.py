"""What both runners' processors know of a request, and how they treat the rows of one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Cut
from palaestra.agents.engines.vllm.ledger import LEDGER
from palaestra.agents.engines.vllm.measure import measure
from palaestra.agents.engines.vllm.rule import rule_in

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """A request of ours."""

    key: str
    temperature: float
    trie: TokenTrie | None
    cut: Cut | None

    def allowed(self, output: Sequence[int]) -> list[int] | None:
        """The ids that may follow `output`; `None` for all. After the end of a completion nothing is left to forbid."""
        if self.trie is None:
            return None
        node = self.trie.root
        for token in output:
            if token not in node:
                return None
            node = self.trie.child(node, token)
        return self.trie.allowed(node) or None


def watched(sampling_params: Any) -> Watched | None:
    """What vLLM's parameters of a request ask of us; `None` for requests that are not ours."""
    rule = rule_in(sampling_params.extra_args)
    return None if rule is None else Watched(rule.key, sampling_params.temperature, rule.trie, rule.cut)


def treat(logits: Tensor, rows: Sequence[int], requests: Sequence[Watched], outputs: Sequence[Sequence[int]]) -> None:
    """Mask and measure one step.

    Args:
        logits: [R, V] float32, before temperature.
        rows: Which of them are ours.
        requests: Per row of ours.
        outputs: Per row of ours, the tokens that it has sampled (where there is no constraint, anything as long).
    """
    if not rows:
        return
    allowed = [request.allowed(output) for request, output in zip(requests, outputs, strict=True)]
    values = measure(logits, rows, [r.temperature for r in requests], allowed, [r.cut for r in requests])
    LEDGER.note([request.key for request in requests], [len(output) for output in outputs], values)


def guarded(work: Callable[[], None]) -> None:
    """Do it; should it fail, say so in the ledger and the log: an exception here would end the engine."""
    try:
        work()
    except Exception as error:
        if not LEDGER.failure:
            logger.exception("palaestra's logits processor failed; the engine goes on without it")
        LEDGER.failure = f"{type(error).__name__}: {error}"
