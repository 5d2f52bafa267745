"""A corpus and questions of the user's own: `corpus.jsonl` and `questions.jsonl`, plain or gzipped, in one folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from palaestra.envs.datafiles import read_jsonl
from palaestra.envs.params import split_of
from palaestra.envs.search.corpus import LONGEST_TITLE, Page
from palaestra.envs.search.questions import Question
from palaestra.envs.search.request import LONGEST
from palaestra.envs.tasks import SPLITS
from palaestra.errors import DataError

LONGEST_QUESTION = 10_000
"""Characters."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class PageLine(msgspec.Struct):
    """A line of `corpus.jsonl`."""

    id: str | int = ""
    """Unique; the number of the line where there is none."""
    title: str = ""
    text: str = ""
    contents: str = ""
    """Instead of `title` and `text`: the title in quotes, a line break, the text (as retrieval corpora have it)."""


class QuestionLine(msgspec.Struct):
    """A line of `questions.jsonl`."""

    question: str
    answers: list[str] | str = []
    """Any of them counts."""
    answer: str = ""
    """Instead of `answers`."""
    golden_answers: list[str] = []
    """Instead of `answers`."""
    id: str | int = ""
    """Names the task; the number of the line where there is none."""
    type: str = ""
    """The row under which evaluation reports it."""
    split: str = ""
    """Where no line has one, a hash of the question decides: 80 % train, 10 % validation, 10 % test."""
    pages: list[str] = []
    """Titles or ids of the supporting pages, for the oracle."""


class Asked(msgspec.Struct, frozen=True):
    """A question with its name and split."""

    id: str
    split: str
    question: Question


def find_file(folder: Path, name: str) -> Path:
    """`name` in `folder`, or that name with `.gz`.

    Raises:
        DataError: neither is there.
    """
    for file in (folder / name, folder / f"{name}.gz"):
        if file.exists():
            return file
    raise DataError(f"{str(folder)[:500]!r} has no {name} and no {name}.gz")


def read_corpus(file: Path) -> Iterator[Page]:
    """The pages of a corpus file.

    Raises:
        DataError: while iterating: it is no such file, a line has no text, or two pages have one id.
    """
    seen: set[str] = set()
    for number, line in enumerate(read_jsonl(file, PageLine), 1):
        title, text = (line.title, line.text) if line.text else _taken_apart(line.contents)
        id = str(line.id)[:LONGEST_TITLE] or str(number)
        if not text.strip():
            raise DataError(f"{file}, page {number}: it has neither text nor contents")
        if id in seen:
            raise DataError(f"{file}, page {number}: another page has the id {id!r}")
        seen.add(id)
        yield Page(id, one_line(title)[:LONGEST_TITLE] or id, clean(text))


def _taken_apart(contents: str) -> tuple[str, str]:
    title, _, text = contents.partition("\n")
    return (title.strip().strip('"'), text) if text.strip() else ("", contents)


def read_questions(file: Path) -> Iterator[Asked]:
    """The questions of a questions file.

    Raises:
        DataError: while iterating: it is no such file, a question has no answer or is too long, or a split is unknown.
    """
    lines = list(read_jsonl(file, QuestionLine))
    divided = any(line.split for line in lines)
    for number, line in enumerate(lines, 1):
        text = clean(line.question).strip()
        answers = [line.answers] if isinstance(line.answers, str) else line.answers
        golds = kept_answers([*answers, line.answer, *line.golden_answers])
        split = line.split if divided else split_of(f"search/{text}")
        if not text or not golds:
            raise DataError(f"{file}, question {number}: it has no {'answer' if text else 'question'}")
        if len(text) > LONGEST_QUESTION:
            raise DataError(f"{file}, question {number}: it is longer than {LONGEST_QUESTION} characters")
        if split not in SPLITS:
            raise DataError(f"{file}, question {number}: its split is {split[:80]!r}, not one of {', '.join(SPLITS)}")
        pages = tuple(one_line(page) for page in line.pages)
        yield Asked(str(line.id) or str(number), split, Question(text, golds, line.type[:80], 0, pages))


def kept_answers(answers: Iterable[str]) -> tuple[str, ...]:
    """Those that an answer can equal at all, each once."""
    cleaned = (one_line(answer) for answer in answers)
    return tuple(dict.fromkeys(answer for answer in cleaned if answer and len(answer) <= LONGEST))


def clean(text: str) -> str:
    """`text` without control characters, apart from line breaks and tabs."""
    return _CONTROL.sub(" ", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` on one line."""
    return " ".join(clean(text).split())
