"""Rows of SWE-bench and of data sets of the same form, read from the user's files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct, field

from palaestra.envs.datafiles import check_file, read_json, read_jsonl, read_parquet
from palaestra.errors import DataError

MOST_ROWS = 200_000
MOST_LINE = 64 * 1024 * 1024
"""Bytes of a row; instances with thousands of tests have long ones."""
MOST_TESTS = 100_000
"""Of one instance."""
_ENDINGS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
_NAME = re.compile(r"[\w][\w.+-]{0,199}")
_REPO = re.compile(r"[\w][\w.-]{0,99}/[\w][\w.-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


class Columns(Struct):
    """A row as it lies there. Lists of tests are lists, or JSON in a text."""

    instance_id: str
    repo: str
    base_commit: str
    problem_statement: str
    test_patch: str
    patch: str = ""
    fail_to_pass: list[str] | str = field(name="FAIL_TO_PASS", default="")
    pass_to_pass: list[str] | str | None = field(name="PASS_TO_PASS", default=None)
    version: str | None = None
    environment_setup_commit: str | None = None


class Row(Struct, frozen=True):
    """One instance."""

    instance_id: str
    repo: str
    """`OWNER/NAME`."""
    base_commit: str
    problem_statement: str
    test_patch: str
    patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    version: str


def find_files(given: object, split: str, belongs: str) -> list[Path]:
    """The files with the rows of a split.

    Args:
        given: a file, or a folder with files (or with `data/`) whose names begin with a split.
        split: of which.
        belongs: the split of a single file.

    Raises:
        DataError: there is no such file or folder, or no file of any split in it.
    """
    if not isinstance(given, str | Path) or not str(given):
        raise DataError(f"path of swe/swebench is a file or a folder, not {str(given)[:200]!r}")
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        return [check_file(path)] if split == belongs else []
    try:
        files = sorted(file for place in (path, path / "data") if place.is_dir() for file in place.iterdir())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    files = [file for file in files if file.name.endswith(_ENDINGS) and file.is_file()]
    found = [file for file in files if _split(file) == split]
    if not any(map(_split, files)):
        raise DataError(f"{path} has no file whose name begins with a split, as test.jsonl does")
    return found


def _split(file: Path) -> str:
    word = re.split(r"[-_.]", file.name)[0].lower()
    return next((split for split, words in _SPLITS.items() if word in words), "")


def read_rows(file: Path) -> dict[str, Row]:
    """The rows of a file by `instance_id`; kept until the file changes.

    Raises:
        DataError: there is no such file, it holds something else, a field makes no sense, or two rows have one id; the
            message names file, row and field.
    """
    found = check_file(file).stat()
    return _read(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(file: Path, size: int, changed: int) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for number, columns in enumerate(_columns(file), 1):
        row = _row(columns, f"{file}, row {number}")
        if row.instance_id in rows:
            raise DataError(f"{file}, row {number}: another row has the instance_id {row.instance_id!r}")
        rows[row.instance_id] = row
    return rows


def _columns(file: Path) -> Iterable[Columns]:
    name = file.name.lower()
    if name.endswith(".parquet"):
        return read_parquet(file, Columns, most_rows=MOST_ROWS)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(file, Columns, most_line=MOST_LINE, most_lines=MOST_ROWS)
    return read_json(file, list[Columns])


def _row(columns: Columns, where: str) -> Row:
    for name, value, form in (
        ("instance_id", columns.instance_id, _NAME),
        ("repo", columns.repo, _REPO),
        ("base_commit", columns.base_commit, _COMMIT),
    ):
        if not form.fullmatch(value) or ".." in value:
            raise DataError(f"{where}: {name} cannot be {value[:80]!r}")
    if not columns.test_patch.strip():
        raise DataError(f"{where}: test_patch is empty, so nothing would judge it")
    return Row(
        columns.instance_id,
        columns.repo,
        columns.base_commit,
        columns.problem_statement,
        columns.test_patch,
        columns.patch,
        _listed(columns.fail_to_pass, f"{where}: FAIL_TO_PASS"),
        _listed(columns.pass_to_pass or [], f"{where}: PASS_TO_PASS"),
        columns.version or "",
    )


def _listed(given: list[str] | str, what: str) -> tuple[str, ...]:
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given or "[]", type=list[str])
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DataError(f"{what} is neither a list of texts nor JSON of one: {str(error)[:200]}") from None
    if len(given) > MOST_TESTS:
        raise DataError(f"{what} names more than {MOST_TESTS} tests, which is the limit")
    return tuple(given)
