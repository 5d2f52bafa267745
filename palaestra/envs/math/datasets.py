"""Sets of problems: where each lies, how its records read, and which of them a split has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from palaestra.envs.datafiles import VARIABLE, find_data, read_jsonl, read_parquet
from palaestra.envs.hub import dataset_file
from palaestra.envs.math.answer import last_answer, readable
from palaestra.envs.math.problem import Problem
from palaestra.envs.math.splits import same_text, split_of
from palaestra.errors import ConfigError, DataError

_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


class Record(msgspec.Struct, frozen=True):
    """A record of any of the sets; which fields it has differs."""

    problem: str = ""
    question: str = ""
    prompt: str = ""
    answer: str | int | float | None = None
    solution: str | None = None
    subject: str | None = None

    @property
    def text(self) -> str:
        """The problem."""
        return (self.problem or self.question or self.prompt).strip()

    @property
    def gold(self) -> str:
        """Its answer: that of the record, what follows GSM8K's `####`, or what is in the box of the solution."""
        answer = "" if self.answer is None else str(self.answer)
        reasoning, mark, last = answer.rpartition("####")
        if mark:
            return last.strip().replace(",", "")
        solution = self.solution or ""
        return (reasoning + last).strip() or last_answer(solution) or solution.strip()


@dataclass(frozen=True, slots=True)
class Source:
    """One set."""

    files: dict[str, str]
    """Split -> name of the file that has it, without its ending."""
    repo: str = ""
    """On the hub; empty where it is not there."""
    revision: str = ""
    names: dict[str, str] | None = None
    """Its files there, by their names here."""
    hashed: bool = False
    """Whether all splits are in one file and the text of a problem decides."""


SOURCES = {
    "gsm8k": Source(
        files={"train": "train", "validation": "train", "test": "test"},
        repo="openai/gsm8k",
        revision="main",
        names={"train": "main/train-00000-of-00001.parquet", "test": "main/test-00000-of-00001.parquet"},
    ),
    "math500": Source(
        files={"test": "test"},
        repo="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        names={"test": "test.jsonl"},
    ),
    "aime24": Source(
        files={"test": "test"},
        repo="HuggingFaceH4/aime_2024",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        names={"test": "data/train-00000-of-00001.parquet"},
    ),
    "aime25": Source(
        files={"test": "test"},
        repo="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        names={"test": "test.jsonl"},
    ),
    "dapo": Source(
        files={"train": "train", "validation": "train", "test": "train"},
        repo="open-r1/DAPO-Math-17k-Processed",
        revision="main",
        names={"train": "en/train-00000-of-00001.parquet"},
        hashed=True,
    ),
    "file": Source(files={"train": "train", "validation": "train", "test": "train"}, hashed=True),
}


def problems(level: str, split: str, data: str | None) -> list[tuple[str, Problem]]:
    """The problems of one split with their names, each text once.

    Args:
        level: which set.
        split: `train`, `validation` or `test`.
        data: a file, or a folder with `train.jsonl` or `test.jsonl` (also `.jsonl.gz`, `.parquet`). Without it, the
            folder `level` below `PALAESTRA_DATA` is looked for, then the hub.

    Raises:
        ConfigError: the set has no such split.
        DataError: there is no such file, or it does not hold problems.
        MissingExtraError: it is on the hub, or in Parquet, and the extra `hub` is not installed.
    """
    source = SOURCES[level]
    if split not in source.files:
        raise ConfigError(
            f"math/{level} has only problems to test with and no {split}: train on math/gsm8k or math/file"
        )
    path = _file(level, source, source.files[split], data)
    found, seen = [], set[str]()
    for number, record in enumerate(_read(path), 1):
        problem = _problem(level, record, f"{path}, record {number}")
        text = same_text(problem.problem)
        if text not in seen and _belongs(source, split, problem.problem):
            found.append((f"{level}-{source.files[split]}-{number - 1}", problem))
        seen.add(text)
    if not found:
        raise DataError(f"{path} has no problem for {split}: a tenth of the texts are for test, a tenth for validation")
    return found


def _belongs(source: Source, split: str, text: str) -> bool:
    if source.hashed:
        return split_of(text) == split
    if source.files.get("validation") == source.files[split]:
        return (split_of(text) == "validation") == (split == "validation")
    return True


def _file(level: str, source: Source, name: str, data: str | None) -> Path:
    folder = Path(data).expanduser() if data else find_data(level)
    if folder is not None:
        return _within(folder, name)
    if not source.repo:
        raise ConfigError(f"math/{level} reads problems of yours: give a file with data=FILE")
    try:
        return dataset_file(source.repo, (source.names or {})[name], source.revision)
    except DataError as error:
        raise DataError(f"{error}, with {name}.jsonl in it, or put it in ${VARIABLE}/{level}") from None


def _within(folder: Path, name: str) -> Path:
    """The file itself, or the one of that name in the folder."""
    if not folder.is_dir():
        return folder
    for suffix in _SUFFIXES:
        if (path := folder / f"{name}{suffix}").exists():
            return path
    raise DataError(f"{folder} has no {name}.jsonl (or {', '.join(name + suffix for suffix in _SUFFIXES[1:])})")


def _read(path: Path) -> Iterator[Record]:
    return read_parquet(path, Record) if path.suffix == ".parquet" else read_jsonl(path, Record)


def _problem(level: str, record: Record, where: str) -> Problem:
    gold = record.gold
    if not record.text:
        raise DataError(f"{where} has no problem: no text in problem, question or prompt")
    if not readable(gold):
        raise DataError(f"{where} has no answer that can be read: {gold[:100]!r}")
    return Problem(problem=record.text, answer=gold, kind=record.subject or level)
