"""Full-text search over short documents, by BM25 on the `tantivy` library.

An index never changes, so that threads and forked workers share it. A query is text, never a query
language: its words are looked for, whatever else stands in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from palaestra.errors import DataError, require
from palaestra.files import replace_text

MOST_WORDS = 64
"""Of a query; further different words don't count."""
MOST_CHARACTERS = 1 << 14
"""Of a query; what stands behind is not read."""
_LONGEST_WORD = 40
_HEAP = 2 << 30
"""Bytes that the index may take while it is built; memory that is not needed is not taken."""
_ANALYZER = "palaestra"
_IDS = "ids.json"


class Document(NamedTuple):
    """What can be found."""

    id: str
    title: str
    body: str


class Hit(NamedTuple):
    """A document that was found."""

    id: str
    score: float
    """BM25's, more is better; comparable within one search only."""


class TextIndex:
    """Documents by their words: lower-cased, without accents, stemmed as English.

    A document's score is BM25 of its body plus `title_weight` times BM25 of its title. Equal scores are in order of
    their ids. The same documents give the same index and the same hits in every process.
    """

    def __init__(self, documents: Iterable[Document], *, title_weight: float = 1.0, folder: Path | None = None) -> None:
        """Build the index, which takes some seconds for 100,000 documents.

        Args:
            documents: what can be found; their ids differ.
            title_weight: what a word in the title counts beside one in the body; 0 for nothing.
            folder: an empty folder to keep the index in, for `open`; without it the index is in memory.

        Raises:
            DataError: two documents have one id, or all of them together are too large for an index.
            MissingExtraError: tantivy is not installed.
        """
        tantivy = require("tantivy", "fulltext")
        # Hits of one score come in the order in which the documents were added, so that is the order of their ids.
        ordered = sorted(documents)
        ids = [document.id for document in ordered]
        if len(set(ids)) < len(ids):
            raise DataError("two documents to be searched have the same id")
        index = tantivy.Index(_schema(tantivy), path=str(folder) if folder else None)
        self._use(tantivy, index, ids, title_weight)
        _add(tantivy, index, ordered)
        self._read()
        if folder:
            replace_text(folder / _IDS, msgspec.json.encode(ids).decode())

    @classmethod
    def open(cls, folder: Path, *, title_weight: float = 1.0) -> Self:
        """The index that was built in `folder`, which is read where it lies and shared by all who open it.

        Raises:
            DataError: there is no index, or a damaged one.
            MissingExtraError: tantivy is not installed.
        """
        tantivy = require("tantivy", "fulltext")
        made = cls.__new__(cls)
        try:
            ids = msgspec.json.decode((folder / _IDS).read_bytes(), type=list[str])
            made._use(tantivy, tantivy.Index.open(str(folder)), ids, title_weight)
            made._read()
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} has no index that can be read: {error}") from None
        return made

    def _use(self, tantivy: Any, index: Any, ids: list[str], title_weight: float) -> None:
        self._tantivy, self._index, self._ids, self._title_weight = tantivy, index, ids, title_weight
        self._analyzer = _analyzer(tantivy)
        index.register_tokenizer(_ANALYZER, self._analyzer)

    def _read(self) -> None:
        self._index.config_reader("manual")
        self._index.reload()
        self._searcher = self._index.searcher()
        if self._searcher.num_segments > 1 or self._searcher.num_docs != len(self._ids):
            raise DataError(f"{len(self._ids)} documents are too large for one index; search fewer of them")

    def __len__(self) -> int:
        return len(self._ids)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The at most `k` best documents that have any word of `query`, best first.

        May be called from any thread. Takes any text, a megabyte of control characters as well as nothing.
        """
        words = self.words(query)
        if not words or k < 1 or not self._ids:
            return []
        found = self._searcher.search(self._query(words), k, count=False)
        return [Hit(self._ids[address.doc], score) for score, address in found.hits]

    def words(self, query: str) -> list[str]:
        """The different words that `search` looks for, as the index has them, in order."""
        words = self._analyzer.analyze(_clean(query[:MOST_CHARACTERS]))
        return list(dict.fromkeys(words))[:MOST_WORDS]

    def _query(self, words: list[str]) -> Any:
        query, should, schema = self._tantivy.Query, self._tantivy.Occur.Should, self._index.schema
        parts = [(should, query.term_query(schema, "body", word, "freq")) for word in words]
        for word in words if self._title_weight else ():
            title = query.term_query(schema, "title", word, "freq")
            parts.append((should, query.boost_query(title, self._title_weight)))
        return query.boolean_query(parts)


def _analyzer(tantivy: Any) -> Any:
    filters = tantivy.Filter
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for one in (filters.remove_long(_LONGEST_WORD), filters.lowercase(), filters.ascii_fold()):
        builder = builder.filter(one)
    return builder.filter(filters.stemmer("english")).build()


def _schema(tantivy: Any) -> Any:
    builder = tantivy.SchemaBuilder()
    for field in ("title", "body"):
        builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _add(tantivy: Any, index: Any, documents: list[Document]) -> None:
    # One thread and one commit make one segment, in which documents keep their order.
    writer = index.writer(_HEAP, 1)
    for document in documents:
        writer.add_document(tantivy.Document(title=_clean(document.title), body=_clean(document.body)))
    writer.commit()
    writer.wait_merging_threads()


def _clean(text: str) -> str:
    """Without what UTF-8 cannot have, which is half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
