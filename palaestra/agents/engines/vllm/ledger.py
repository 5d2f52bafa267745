"""What the worker measured, by request and token, until the engine asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST = 65_536
"""Requests that are remembered; beyond that the oldest are forgotten, which nobody asked for."""


class Ledger:
    """Measurements of running and finished requests. They stay on the device until they are taken."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._rows: dict[str, dict[int, Tensor]] = {}
        self.failure = ""
        """Why something could not be measured; empty if nothing failed."""

    def note(self, keys: Sequence[str], positions: Sequence[int], values: Tensor) -> None:
        """Remember one measurement per request.

        Args:
            keys: of the requests.
            positions: index of the token that is about to be sampled. What was noted for it before was a prompt's part.
            values: [len(keys), 2], as `measure` returns.
        """
        for key, position, value in zip(keys, positions, values, strict=True):
            self._rows.setdefault(key, {})[position] = value
        while len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]

    def take(self, key: str, count: int) -> list[list[float]]:
        """Entropy and share of the first `count` tokens of a request, which is then forgotten; empty if one lacks."""
        rows = self._rows.pop(key, {})
        if not count or any(position not in rows for position in range(count)):
            return []
        taken: list[list[float]] = torch.stack([rows[position] for position in range(count)]).tolist()
        return taken

    def forget(self, key: str) -> None:
        """Of a request that was given up."""
        self._rows.pop(key, None)


LEDGER = Ledger()
"""Of this worker process."""
