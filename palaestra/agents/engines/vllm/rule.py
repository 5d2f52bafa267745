"""What one request asks of our logits processor, as it travels in vLLM's `SamplingParams.extra_args`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.agents.constraint import Node, TokenTrie
from palaestra.agents.engines.base import Cut, Request

FIELD = "palaestra"
"""Our key in `extra_args`."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """JSON-shaped, so that it travels over HTTP too."""

    key: str
    """Under which the worker notes what it measures."""
    completions: list[list[int]] | None = None
    """All that the constraint allows; `None`: anything."""
    top_k: int = 0
    """As our `SamplingParams.top_k`: vLLM's own breaks ties otherwise, and reports the cut distribution's log-probs."""
    top_p: float = 1.0
    """As our `SamplingParams.top_p`."""

    @property
    def cut(self) -> Cut | None:
        """Which tokens may be drawn; `None` for all."""
        return Cut(self.top_k, self.top_p) if self.top_k or self.top_p < 1 else None

    @property
    def trie(self) -> TokenTrie | None:
        """The constraint, built anew."""
        return None if self.completions is None else TokenTrie(self.completions)


def rule_of(request: Request, key: str) -> Rule:
    """What `request` asks, under the name `key`."""
    sampling, trie = request.sampling, request.constraint
    completions = None if trie is None else paths(trie.root)
    return Rule(key=key, completions=completions, top_k=sampling.top_k, top_p=sampling.top_p)


def rule_in(extra_args: Mapping[str, Any] | None) -> Rule | None:
    """What a request of ours asks; `None` for anybody else's.

    Raises:
        msgspec.ValidationError: it is malformed.
    """
    told = (extra_args or {}).get(FIELD)
    return None if told is None else msgspec.convert(told, Rule)


def paths(node: Node) -> list[list[int]]:
    """Every way from `node` to an end, as token ids, in order of the ids."""
    return [[token, *rest] for token in sorted(node) for rest in (paths(node[token]) or [[]])]
