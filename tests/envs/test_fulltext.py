"""Full-text search: what is found and in which order, hostile queries, threads, forks."""

from __future__ import annotations

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tantivy", reason="not installed: pip install 'palaestra[fulltext]'")

from palaestra.envs.fulltext import Document, Hit, TextIndex
from palaestra.errors import DataError, MissingExtraError

WORDS = ["red", "blue", "green", "shoe", "boot", "café", "kettle", "lamp", "running", "runs", "table", "wooden", "oak"]


def corpus(size: int) -> list[Document]:
    generator = random.Random(1)
    return [
        Document(f"d{i:04}", " ".join(generator.choices(WORDS, k=3)), " ".join(generator.choices(WORDS, k=12)))
        for i in range(size)
    ]


INDEX = TextIndex(corpus(300))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_it_finds_by_stem_case_and_accent() -> None:
    index = TextIndex(
        [Document("a", "Running shoe", ""), Document("b", "", "the CAFÉ table"), Document("c", "lamp", "oak")]
    )
    assert ids(index.search("runs")) == ["a"]
    assert ids(index.search("cafe TABLES")) == ["b"]
    assert ids(index.search("oak running")) in (["a", "c"], ["c", "a"])
    assert index.search("zebra") == []
    assert len(index) == 3


def test_equal_scores_are_in_order_of_ids_whatever_the_order_of_documents() -> None:
    documents = [Document(f"{i:03}", "same", "words here") for i in range(100)]
    shuffled = random.Random(0).sample(documents, 100)
    assert ids(TextIndex(shuffled).search("words", 7)) == [f"{i:03}" for i in range(7)]


def test_a_title_can_weigh_more() -> None:
    documents = [Document("body", "x", "lamp"), Document("title", "lamp", "x")]
    assert ids(TextIndex(documents, title_weight=3).search("lamp")) == ["title", "body"]
    assert ids(TextIndex(documents, title_weight=0).search("lamp")) == ["body"]


def test_the_best_come_first_and_more_results_begin_with_fewer() -> None:
    many = INDEX.search("red wooden lamp", 50)
    scores = [hit.score for hit in many]
    assert scores == sorted(scores, reverse=True)
    assert INDEX.search("red wooden lamp", 10) == many[:10]
    assert TextIndex(corpus(300)).search("red wooden lamp", 50) == many


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "*:*",
        "[[[",
        "title:",
        '"',
        "\\",
        "AND OR NOT",
        "a^1e999",
        "\0\x1b\x7f",
        "\ud800",
        "x" * 10**6,
        "😀" * 999,
    ],
)
def test_hostile_queries_are_text(query: str) -> None:
    assert INDEX.search(query, 5) == INDEX.search(query, 5)


def test_query_syntax_means_nothing() -> None:
    assert INDEX.search('+red -blue "lamp" (oak)^9 title:table') == INDEX.search("red blue lamp oak title table")


def test_a_megabyte_counts_by_its_beginning() -> None:
    assert INDEX.search("lamp " * 200_000, 5) == INDEX.search("lamp", 5)


@settings(deadline=None)
@given(st.text() | st.text(alphabet='"+-&|!(){}[]^~*?:\\/ lamp'), st.integers(-1, 400))
def test_any_text_is_answered(query: str, k: int) -> None:
    hits = INDEX.search(query, k)
    assert len(hits) <= max(k, 0)
    assert len(set(ids(hits))) == len(hits)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))


def test_threads_share_an_index() -> None:
    queries = [" ".join(pair) for pair in zip(WORDS, reversed(WORDS), strict=True)] * 20
    expected = [INDEX.search(query) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(INDEX.search, queries)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_searches() -> None:
    expected = INDEX.search("lamp")
    child = os.fork()
    if not child:
        os._exit(0 if INDEX.search("lamp") == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_index_in_a_folder_is_that_in_memory(tmp_path: Path) -> None:
    built = TextIndex(corpus(300), folder=tmp_path)
    again = TextIndex.open(tmp_path)
    for query in ("red lamp", "café", "", "wooden " * 99):
        assert built.search(query, 50) == again.search(query, 50) == INDEX.search(query, 50)


@pytest.mark.parametrize("name", ["ids.json", "meta.json", "*.idx", "*.term"])
def test_a_damaged_index_is_told(tmp_path: Path, name: str) -> None:
    TextIndex(corpus(10), folder=tmp_path)
    file = next(tmp_path.glob(name))
    file.write_bytes(b"{")
    with pytest.raises(DataError, match="index"):
        TextIndex.open(tmp_path).search("lamp")
    file.unlink()
    with pytest.raises(DataError, match="index"):
        TextIndex.open(tmp_path)
    with pytest.raises(DataError, match="index"):
        TextIndex.open(tmp_path / "nowhere")


def test_odd_corpora() -> None:
    assert TextIndex([]).search("lamp") == []
    assert TextIndex([Document("\ud800", "\ud800", "\0 lamp")]).search("lamp")[0].id == "\ud800"
    with pytest.raises(DataError, match="same id"):
        TextIndex([Document("a", "", "x"), Document("a", "", "y")])


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[fulltext\]"):
        TextIndex([])
