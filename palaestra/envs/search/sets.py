"""Published question sets: where they are, and what they are like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from palaestra.envs.search.rows import Row, flash_rows, musique_rows


class PublishedSet(NamedTuple):
    """A set on a hub."""

    repo: str
    revision: str
    """A commit, so that it stays the same."""
    train: str
    """File of our `train` and `validation`; empty for none."""
    test: str
    """File of our `test`: the set's development questions, whose answers are public, or its test questions."""
    rows: Callable[[Path], Iterator[Row]]
    paragraphs: bool
    """Whether its questions come with paragraphs, which are the corpus; for others the user names one."""


_FLASH = ("RUC-NLPIR/FlashRAG_datasets", "bcafb8dd07d453be3cbeeeb3f78be1841bddf92c")
_MUSIQUE = ("dgslibisey/MuSiQue", "c8f4f8c9465fb69d31a8eae894c3fd509c4ca321")


def _flash(name: str, train: str, test: str, *, paragraphs: bool) -> PublishedSet:
    files = [f"{name}/{part}.jsonl" if part else "" for part in (train, test)]
    return PublishedSet(*_FLASH, files[0], files[1], flash_rows, paragraphs)


SETS: Mapping[str, PublishedSet] = {
    "hotpotqa": _flash("hotpotqa", "train", "dev", paragraphs=True),
    "2wikimultihopqa": _flash("2wikimultihopqa", "train", "dev", paragraphs=True),
    "musique": PublishedSet(
        *_MUSIQUE, "musique_ans_v1.0_train.jsonl", "musique_ans_v1.0_dev.jsonl", musique_rows, paragraphs=True
    ),
    "bamboogle": _flash("bamboogle", "", "test", paragraphs=False),
    "nq": _flash("nq", "train", "test", paragraphs=False),
}
"""Level -> set."""
