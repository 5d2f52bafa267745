"""Pages that can be searched and read."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from palaestra.envs.fulltext import Document, TextIndex
from palaestra.errors import DataError

LONGEST_TITLE = 300
"""Characters; of what is looked up, no more count."""
_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_WORDS = re.compile(r"\w+")


class Page(msgspec.Struct, frozen=True):
    """One page or passage."""

    id: str
    title: str
    text: str
    aliases: tuple[str, ...] = ()
    """Other names under which it can be read."""
    mentions: tuple[str, ...] | None = None
    """Titles and values that its text names; `None` where nobody has noted them."""


class Corpus:
    """Pages with an index over them. It never changes, so that all instances of a process share it."""

    def __init__(self, pages: Iterable[Page]) -> None:
        """Build the index: 0.05 s for 500 pages, seconds for 100,000.

        Raises:
            DataError: there is no page, or two have the same id.
            MissingExtraError: tantivy is not installed.
        """
        self._pages = {page.id: page for page in pages}
        if not self._pages:
            raise DataError("a corpus without pages cannot be searched")
        self._index = TextIndex(Document(page.id, page.title, page.text) for page in self._pages.values())
        self._named: dict[str, str] = {}
        for page in self._pages.values():
            for name in (page.title, *page.aliases):
                self._named.setdefault(_key(name), page.id)

    def __len__(self) -> int:
        return len(self._pages)

    def search(self, query: str, count: int) -> list[Page]:
        """The at most `count` pages that suit any text best, by BM25 of title and text."""
        return [self._pages[hit.id] for hit in self._index.search(query, count)]

    def find(self, name: str) -> Page | None:
        """The page of that title, alias or id; of several that are called alike, the first."""
        known = self._named.get(_key(name), name)
        return self._pages.get(known)


def _key(name: str) -> str:
    return " ".join(name[:LONGEST_TITLE].casefold().split())


def snippet(text: str, query: str, length: int) -> str:
    """The piece of `text` around its first sentence with the most words of `query`, at most `length` characters."""
    wanted = _words(query)
    pieces = _SENTENCES.split(text[:20_000])
    best = max(range(len(pieces)), key=lambda place: len(wanted & _words(pieces[place])))
    start = best
    while start > 0 and sum(len(piece) + 1 for piece in pieces[start - 1 : best + 1]) <= length // 2:
        start -= 1
    piece = " ".join(pieces[start:])
    shown = piece if len(piece) <= length else piece[:length].rsplit(" ", 1)[0] + " ..."
    return f"... {shown}" if start else shown


def _words(text: str) -> set[str]:
    return set(_WORDS.findall(text.lower()))
