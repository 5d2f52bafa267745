"""Global generators of an episode's own, for packages that draw from `random` and `numpy.random` themselves.

An episode keeps a state of its own for both, which is theirs only while a call of the package runs. One lock makes the
calls of all threads take turns.
"""

from __future__ import annotations

import contextlib
import copy
import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_TURN = threading.RLock()
_numpy: Any = np.random  # its stubs leave out that its generator can be exchanged


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


_NOWHERE = _Nowhere()


class Chance:
    """What the global generators are while one episode's code runs."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).getstate()
        self._numpy = np.random.MT19937(seed)

    def copy(self) -> Chance:
        """Generators that go on as these would, apart from them."""
        twin = copy.copy(self)
        twin._numpy = np.random.MT19937()
        twin._numpy.state = self._numpy.state
        return twin

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within, the global generators are this episode's, and what is printed goes nowhere."""
        with _TURN, contextlib.redirect_stdout(_NOWHERE):
            before, numpys = random.getstate(), _numpy.get_bit_generator()
            random.setstate(self._random)
            _numpy.set_bit_generator(self._numpy)  # by reference: its state takes a hundred times as long to copy
            try:
                yield
            finally:
                self._random = random.getstate()
                random.setstate(before)
                _numpy.set_bit_generator(numpys)
