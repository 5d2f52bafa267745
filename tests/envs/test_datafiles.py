"""Data files of the user's: what is right is read, and everything else is a DataError that says what and where."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.datafiles import find_data, read_json, read_jsonl, read_parquet
from palaestra.errors import DataError


class Record(msgspec.Struct, frozen=True):
    question: str
    answer: str = ""


GOOD = b'{"question": "1 + 1?", "answer": "2", "more": [1]}\n\n{"question": "\xc3\xa9?"}\r\n'
READ = [Record("1 + 1?", "2"), Record("é?")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda text: b"\xef\xbb\xbf" + text])
def test_plain_gzipped_and_marked_files_are_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(pack(GOOD))
    assert list(read_jsonl(path, Record)) == READ


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b'[{"question": "a"}]'))
    assert read_json(path, list[Record]) == [Record("a")]


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b"\n\n \n", "is empty"),
    "wrong field": (b'{"question": "a"}\n{"question": 3}\n', r"line 2: Expected `str`, got `int` - at `\$.question`"),
    "missing field": (b'{"prompt": "a"}', "line 1: Object missing required field `question`"),
    "not an object": (b"[1]", "line 1: Expected `object`, got `array`"),
    "cut": (b'{"question": "a"}\n{"quest', "line 2: Input data was truncated"),
    "not utf-8": (b'{"question": "\xff\xfe"}', "line 1: it is not UTF-8"),
    "half a surrogate": (b'{"question": "\\ud800"}', "line 1: "),
    "nested": (b'{"question": "a", "x": ' + b"[" * 200_000, "line 1: "),
    "control characters": (b'{"question": "a\x01"}', "line 1: "),
    "pickle": (pickle.dumps({"question": "a"}), "a pickle, which is never read"),
    "zip": (b"PK\x03\x04abc", "is a zip archive"),
    "parquet": (b"PAR1abc", "is a Parquet file"),
    "binary": (b"\x00\x01\x02", "is binary"),
    "utf-16": ('{"question": "a"}'.encode("utf-16"), "is binary"),
    "html": (b"<!doctype html>", "line 1: JSON is malformed"),
    "gzipped pickle": (gzip.compress(pickle.dumps([1])), "a pickle, which is never read"),
    "truncated gzip": (gzip.compress(GOOD * 3000)[:200], "truncated or damaged"),
    "nothing of a gzip": (b"\x1f\x8b\x08", "truncated or damaged"),
    "damaged gzip": (gzip.compress(GOOD)[:-6] + b"abcdef", "truncated or damaged"),
    "damaged deflate": (gzip.compress(GOOD)[:12] + b"\xff" * 40, "truncated or damaged"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(path, Record))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    with pytest.raises(DataError):
        read_json(path, Record)


BOMBS = {"one line": b"a" * (1 << 20), "records": b'{"question": "a"}\n' * 60_000, "blank lines": b"\n" * (1 << 20)}


@pytest.mark.parametrize("block", BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_before_it_fills_the_memory(tmp_path: Path, block: bytes) -> None:
    path, packed = tmp_path / "bomb.jsonl.gz", io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
        for _ in range(64):
            stream.write(block)
    path.write_bytes(packed.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="limit"):
            for _ in read_jsonl(path, Record, most_bytes=8 << 20, most_line=1 << 19, most_lines=20_000):
                pass
        with pytest.raises(DataError, match="limit"):
            read_json(path, object, most_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_limits_are_inclusive(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = b'{"question": "a"}\n'
    path.write_bytes(line * 3)
    within = {"most_bytes": 3 * len(line), "most_line": len(line), "most_lines": 3}
    assert len(list(read_jsonl(path, Record, **within))) == 3
    for name, limit in within.items():
        with pytest.raises(DataError, match="limit"):
            list(read_jsonl(path, Record, **{**within, name: limit - 1}))


def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "absent.jsonl", "does not exist"),
        (tmp_path / "pipe", "not a plain file"),
        ("/dev/zero", "not a plain file"),
        ("x" * 5000, "does not exist|cannot be read"),
        ("a\0b", "does not exist|cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_jsonl(path, Record))
        with pytest.raises(DataError, match=message):
            read_json(path, Record)


def test_a_name_that_promises_gzip_is_held_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match="not gzipped"):
        list(read_jsonl(path, Record))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_records_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(gzip.compress(content) if pack else content)
    with suppress(DataError):
        assert all(isinstance(record, Record) for record in read_jsonl(path, Record))


def test_parquet_is_read_within_limits(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="not installed: pip install 'palaestra[hub]'")
    import pyarrow

    path = tmp_path / "a.parquet"
    rows = [{"question": f"{i}?", "answer": str(i), "more": [i]} for i in range(600)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(read_parquet(path, Record)) == [Record(row["question"], row["answer"]) for row in rows]
    for limits in ({"most_rows": 599}, {"most_bytes": 100}):
        with pytest.raises(DataError, match="over the limit"):
            list(read_parquet(path, Record, **limits))
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:200] + b"\xff" * 400 + whole[600:], b"PAR1", b"", GOOD):
        path.write_bytes(content)
        with pytest.raises(DataError, match=str(path)):
            list(read_parquet(path, Record))
    parquet.write_table(pyarrow.Table.from_pylist([{"question": 3}]), path)
    with pytest.raises(DataError, match=r"row 1: Expected `str`, got `int`"):
        list(read_parquet(path, Record))
    parquet.write_table(pyarrow.Table.from_pylist(rows[:0], schema=pyarrow.schema([("question", "string")])), path)
    with pytest.raises(DataError, match="empty"):
        list(read_parquet(path, Record))


def test_data_is_found_by_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gsm8k").mkdir()
    monkeypatch.setenv("PALAESTRA_DATA", str(tmp_path))
    assert find_data("gsm8k") == tmp_path / "gsm8k"
    assert find_data("math500") is None
    monkeypatch.delenv("PALAESTRA_DATA")
    assert find_data("gsm8k") is None
