"""A shop: a catalogue and its full-text index, one of each kind in a process, however many visit it."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import msgspec

from palaestra.envs.fulltext import TextIndex
from palaestra.envs.webshop.catalogue import Catalogue, MadeUp
from palaestra.envs.webshop.product import Product
from palaestra.envs.webshop.real import read_catalogue
from palaestra.envs.webshop.shelf import documents, index_of

FOUND = 50
"""Most results of a search."""
PRODUCTS = 1000
"""Of a made-up shop where nobody says otherwise, as in the paper's small setting."""
LARGE = 10_000
"""Products from which on a made-up shop's index is kept on disk."""
_SEARCHES = 4096
"""Searches whose results are remembered."""

_lock = threading.RLock()


class Address(msgspec.Struct, frozen=True):
    """Which shop: all that it takes to open the same one again."""

    products: int = PRODUCTS
    """How many a made-up shop has."""
    seed: int = 0
    """Of a made-up shop."""
    data: str = ""
    """Folder of real products; empty for a made-up shop."""


class Shop:
    """Products that can be searched. Safe in threads and after a fork."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Index the catalogue, which takes some seconds for 100,000 products the first time on a machine."""
        self.catalogue = catalogue
        if isinstance(catalogue, MadeUp) and len(catalogue) >= LARGE:
            self._index = index_of(catalogue)
        else:
            self._index = TextIndex(documents(catalogue))
        self._search = lru_cache(_SEARCHES)(self._found)

    def search(self, query: str) -> tuple[str, ...]:
        """Numbers of the products that are found, the best first."""
        return self._search(query)

    def find(self, asin: str) -> Product:
        """The product of that number."""
        return self.catalogue.find(asin)

    def _found(self, query: str) -> tuple[str, ...]:
        return tuple(hit.id for hit in self._index.search(query, FOUND))


def open_shop(address: Address) -> Shop:
    """The shop at `address`; opened by the first who asks, shared by all others in the process.

    Raises:
        ConfigError: a made-up shop cannot have so many products.
        DataError: the data are missing or no WebShop data.
        EnvError: the cache, where indexes of large shops are kept, cannot be written.
        MissingExtraError: tantivy is not installed.
    """
    with _lock:
        return _opened(address)


def open_catalogue(address: Address) -> Catalogue:
    """What the shop sells, which takes no time for a made-up one; see `open_shop`."""
    with _lock:
        return _catalogue(address)


@lru_cache(4)
def _opened(address: Address) -> Shop:
    return Shop(_catalogue(address))


@lru_cache(4)
def _catalogue(address: Address) -> Catalogue:
    return read_catalogue(Path(address.data)) if address.data else MadeUp(address.products, address.seed)
