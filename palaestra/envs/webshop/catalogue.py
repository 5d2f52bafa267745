"""A shop's products and goals: made up, or the user's. Both are read-only, and shared by whoever visits the shop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from palaestra.envs.webshop.generate import make_product, make_product_goal, number_of
from palaestra.envs.webshop.goal import Goal
from palaestra.envs.webshop.product import Product
from palaestra.errors import ConfigError, UnknownNameError

SPLITS = ("train", "validation", "test")
LEAST, MOST = 200, 10_000_000
"""Products of a made-up shop."""
REMEMBERED = 20_000
"""Made-up products that are kept, so that they need not be made again."""


class Catalogue(Protocol):
    """What a shop sells, and what its visitors want."""

    def __len__(self) -> int:
        """Number of products."""

    def __iter__(self) -> Iterator[Product]:
        """All products."""

    def find(self, asin: str) -> Product:
        """The product of that number, which the catalogue has."""

    def goals(self, split: str) -> int:
        """How many goals a split has."""

    def goal(self, split: str, index: int) -> Goal:
        """Goal `index` of a split."""


class MadeUp:
    """Products and goals that are functions of a seed.

    Of any five products in a row one is wanted in goals of `test`, one in goals of `validation`, three in goals of
    `train`: no product that meets a goal of one split is the product wanted in another. The first products of a large
    catalogue are those of a small one.
    """

    PHASES: Mapping[str, Sequence[int]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}
    """Split -> which of five products in a row its goals want."""

    def __init__(self, size: int, seed: int) -> None:
        if not LEAST <= size <= MOST:
            raise ConfigError(f"a webshop has {LEAST} to {MOST} products, not {size}; set products")
        self.size, self.seed = size, seed
        self._made = lru_cache(REMEMBERED)(self._make)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Product]:
        return (make_product(self.seed, number) for number in range(self.size))

    def find(self, asin: str) -> Product:
        """The product of that number."""
        return self._made(asin)

    def _make(self, asin: str) -> Product:
        number = number_of(asin)
        assert number is not None
        return make_product(self.seed, number)

    def goals(self, split: str) -> int:
        """500 of `test`, 1,000 of `validation`, as in the paper; ten times the products of `train`."""
        return {"train": 10 * self.size, "validation": 1000, "test": 500}[check_split(split)]

    def goal(self, split: str, index: int) -> Goal:
        """Goal `index` of a split."""
        phases = self.PHASES[check_split(split)]
        variant, place = divmod(index, self.size // 5 * len(phases))
        row, column = divmod(place, len(phases))
        return make_product_goal(self.seed, 5 * row + phases[column], variant)


def check_split(split: str) -> str:
    """`split` itself.

    Raises:
        UnknownNameError: there is no such split.
    """
    if split not in SPLITS:
        raise UnknownNameError("split of webshop", split, SPLITS)
    return split
