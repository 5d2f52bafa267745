"""Global generators of an episode's own, for packages that draw from `random` and `numpy.random` themselves.

An episode keeps a state of its own for both, which is theirs only while a call of the package runs. One lock makes the
calls of all threads take turns.
"""

from __future__ import annotations

import contextlib
import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_TURN = threading.RLock()


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


_NOWHERE = _Nowhere()


class Chance:
    """What the global generators are while one episode's code runs."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).getstate()
        self._numpy: Any = np.random.RandomState(seed % 2**32).get_state()  # what the package draws from

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within, the global generators are this episode's, and what is printed goes nowhere."""
        with _TURN, contextlib.redirect_stdout(_NOWHERE):
            before = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.setstate(self._random)
            np.random.set_state(self._numpy)  # noqa: NPY002
            try:
                yield
            finally:
                self._random, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
                random.setstate(before[0])
                np.random.set_state(before[1])  # noqa: NPY002
