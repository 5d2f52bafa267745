"""Indexes of large made-up shops on disk: each is built once, whoever asks, and appears complete or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from itertools import islice
from pathlib import Path

import msgspec

from palaestra.envs.fulltext import Document, TextIndex
from palaestra.envs.hashing import digest
from palaestra.envs.webshop.catalogue import MadeUp
from palaestra.envs.webshop.product import Product
from palaestra.errors import DataError, EnvError, require
from palaestra.files import cache_root

SAMPLE = 100
"""Products by which it is seen that products are still made as they were."""
_COMPLETE = "complete.json"


def index_of(shop: MadeUp) -> TextIndex:
    """The index of a made-up shop, which lies in `webshop` in the cache, `$PALAESTRA_CACHE` or `~/.cache/palaestra`.

    Built now if nobody has before, or if a file of it is not what it was. All processes that use it share its memory.

    Raises:
        EnvError: the cache cannot be written.
        MissingExtraError: tantivy is not installed.
    """
    require("tantivy", "webshop")
    folder = cache_root() / "webshop" / _key(shop)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            return _whole(folder) or _built(shop, folder)
    except OSError as error:
        raise EnvError(f"cannot keep a webshop in {folder.parent}: {error}; set PALAESTRA_CACHE") from error


def documents(products: Iterable[Product]) -> Iterator[Document]:
    """What a search looks at."""
    return (Document(product.asin, product.name, product.text) for product in products)


def _key(shop: MadeUp) -> str:
    sample = [msgspec.to_builtins(product) for product in islice(shop, SAMPLE)]
    return f"{len(shop)}-{shop.seed}-{digest(metadata.version('tantivy'), sample)}"


def _whole(folder: Path) -> TextIndex | None:
    try:
        wanted = msgspec.json.decode((folder / _COMPLETE).read_bytes(), type=dict[str, str])
        return TextIndex.open(folder) if _sums(folder) == wanted else None
    except (OSError, msgspec.MsgspecError, DataError):
        return None


def _built(shop: MadeUp, folder: Path) -> TextIndex:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-", ignore_cleanup_errors=True) as building:
        made = Path(building, "index")
        made.mkdir()
        TextIndex(documents(shop), folder=made)
        (made / _COMPLETE).write_bytes(msgspec.json.encode(_sums(made)))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
    return TextIndex.open(folder)


def _sums(folder: Path) -> dict[str, str]:
    """File -> hash of what is in it; locks, which tantivy leaves behind, are no part of the index."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != _COMPLETE and not path.name.endswith(".lock"):
            with open(path, "rb") as file:
                sums[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return sums


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all threads and processes that lock `path`. A killed process leaves no lock behind."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
