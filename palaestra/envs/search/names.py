"""Invented names. A root belongs to one split, by its hash, so that no name of a test world is seen in training."""

from __future__ import annotations

import random

from palaestra.envs.answers import normalised
from palaestra.envs.params import split_of


def words(text: str) -> tuple[str, ...]:
    """A list of words, written with blanks between them."""
    return tuple(text.split())


_ONSETS = words("b br c cl d dr f fl g gr h k l m n p pr qu r s sk st t th tr v w z")
_VOWELS = words("a e i o u a e o ai ea ie ou")
_CODAS = ("", "", "", *words("l n r s th nd rk m x"))
_ENDINGS = words("a o en el in us ar or is ey ert and old ane une ick olm ery")
_TRIES = 10_000


class Names:
    """Draws names for one world; no two are equal, nor as answers are compared."""

    def __init__(self, split: str, rng: random.Random) -> None:
        self._split, self._rng = split, rng
        self._roots: set[str] = set()
        self._taken: set[tuple[str, ...]] = set()

    def root(self, syllables: int = 2) -> str:
        """A new word of `syllables`, or one more where those have run out: `Velmar`."""
        for attempt in range(_TRIES):
            word = self._word(syllables + attempt // 20)
            if word not in self._roots and split_of(f"search/{word}") == self._split:
                self._roots.add(word)
                return word
        raise AssertionError("unreachable: there are more words than worlds are large")

    def take(self, name: str) -> bool:
        """Whether `name` was free; it is taken now."""
        key = tuple(normalised(name))
        if not key or key in self._taken:
            return False
        self._taken.add(key)
        return True

    def _word(self, syllables: int) -> str:
        parts = (_ONSETS, _VOWELS, _CODAS) * (syllables - 1) + (_ONSETS, _ENDINGS)
        draw = self._rng.random  # four times as fast as `choice`, and worlds of 100,000 pages draw a million
        return "".join([part[int(draw() * len(part))] for part in parts]).capitalize()
