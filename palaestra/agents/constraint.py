"""Completions that are allowed, as a trie of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Node = dict[int, Any]
"""A place in the trie: the next token ids that are allowed, each with its own node. Empty: the completion is over."""


class TokenTrie:
    """The set of allowed completions; each is a sequence of token ids that ends in its stop id.

    Walk it from `root`: `allowed(node)` lists what may come next, `child(node, id)` moves on, and a node with nothing
    allowed is the end of a completion. One is built for every turn, so a node is nothing but a dictionary.

    Example: `TokenTrie([[5, 6, 2], [5, 7, 2]])` allows `[5]`, then `[6, 7]`, then `[2]`.

    Raises:
        ValueError: No completion is given, one is empty, or one is the beginning of another.
    """

    __slots__ = ("root",)

    root: Node

    def __init__(self, completions: Iterable[Sequence[int]]) -> None:
        self.root = {}
        for completion in completions:
            _insert(self.root, completion)
        if not self.root:
            raise ValueError("a constraint needs at least one completion")

    def allowed(self, node: Node) -> list[int]:
        """The sorted ids that may follow; empty at the end of a completion."""
        return sorted(node)

    def child(self, node: Node, token: int) -> Node:
        """The node after `token`, which must be one of `allowed(node)` (`KeyError` otherwise)."""
        child: Node = node[token]
        return child


def _insert(root: Node, completion: Sequence[int]) -> None:
    node, fresh = root, False
    for token in completion:
        child = node.get(token)
        if child is None:
            if node is not root and not node and not fresh:
                raise ValueError(f"the completion {list(completion)} continues another one: end each in a stop id")
            child, fresh = node.setdefault(token, {}), True
        node = child
    if node or not completion:
        raise ValueError(f"the completion {list(completion)} is empty or the beginning of another one")
