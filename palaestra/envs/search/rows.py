"""Lines of published question sets, as typed rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from palaestra.envs.datafiles import read_jsonl
from palaestra.envs.search.files import LONGEST_QUESTION, clean, kept_answers, one_line


class Row(NamedTuple):
    """A question of a published set."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str
    """What the set calls its type."""
    paragraphs: tuple[tuple[str, str], ...]
    """Title and text of those that come with it."""
    supporting: frozenset[int]
    """Places in `paragraphs` of those that the answer follows from."""


class _Context(msgspec.Struct):
    title: list[str] = []
    sentences: list[list[str]] = []
    content: list[list[str]] = []
    """2WikiMultihopQA's name for `sentences`."""


class _Supporting(msgspec.Struct):
    title: list[str] = []


class _Metadata(msgspec.Struct):
    type: Any = ""
    context: _Context | None = None
    supporting_facts: _Supporting | None = None


class _FlashLine(msgspec.Struct):
    question: str
    golden_answers: list[str]
    id: str | int = ""
    metadata: _Metadata | None = None


class _Paragraph(msgspec.Struct):
    title: str
    paragraph_text: str
    is_supporting: bool = False


class _MusiqueLine(msgspec.Struct):
    id: str
    question: str
    answer: str
    answer_aliases: list[str] = []
    answerable: bool = True
    paragraphs: list[_Paragraph] = []


def flash_rows(file: Path) -> Iterator[Row]:
    """Rows of FlashRAG's files: all sets in one shape, with paragraphs in `metadata.context` where a set has them.

    Raises:
        DataError: while iterating: it is no such file.
    """
    for number, line in enumerate(read_jsonl(file, _FlashLine), 1):
        about = line.metadata or _Metadata()
        context = about.context or _Context()
        wanted = set(about.supporting_facts.title) if about.supporting_facts else set()
        sentences = context.sentences or context.content
        paragraphs = [
            (title, " ".join(s.strip() for s in said)) for title, said in zip(context.title, sentences, strict=False)
        ]
        supporting = [place for place, (title, _) in enumerate(paragraphs) if title in wanted]
        kind = about.type if isinstance(about.type, str) else ""
        yield from _row(str(line.id) or str(number), line.question, line.golden_answers, kind, paragraphs, supporting)


def musique_rows(file: Path) -> Iterator[Row]:
    """Rows of MuSiQue's own files; the type is the number of hops, which its ids begin with.

    Raises:
        DataError: while iterating: it is no such file.
    """
    for line in read_jsonl(file, _MusiqueLine):
        paragraphs = [(p.title, p.paragraph_text) for p in line.paragraphs]
        supporting = [place for place, p in enumerate(line.paragraphs) if p.is_supporting]
        answers = [line.answer, *line.answer_aliases] if line.answerable else []
        yield from _row(line.id, line.question, answers, line.id.partition("_")[0], paragraphs, supporting)


def _row(
    id: str, question: str, answers: list[str], kind: str, paragraphs: list[tuple[str, str]], supporting: list[int]
) -> Iterator[Row]:
    """The row, unless it has no question that can be answered."""
    text, golds = clean(question).strip(), kept_answers(answers)
    if text and golds and len(text) <= LONGEST_QUESTION:
        cleaned = tuple((one_line(title), clean(said).strip()) for title, said in paragraphs)
        yield Row(id[:300], text, golds, one_line(kind)[:80], cleaned, frozenset(supporting))
