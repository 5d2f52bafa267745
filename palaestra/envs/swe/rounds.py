"""Rounds of a grading: every test is run as it is in one of them, and as a decoy in the others.

The rounds run in sandboxes of their own. Code under test sees one version of each test and nothing tells it which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from msgspec import Struct

from palaestra.envs.swe.decoys import Alteration, Decoys, functions_of


class Round(Struct, frozen=True):
    """One run of the tests."""

    sources: dict[str, bytes]
    """Files of tests, relative to the repository, that hold decoys -> their content."""
    real: frozenset[str]
    """Required tests that are run as they are: they have to pass."""
    decoys: frozenset[str]
    """Required tests that are run as decoys: they must not pass."""


def plan(required: Sequence[str], files: Mapping[str, bytes], random: Random, rounds: int) -> list[Round]:
    """Which tests are decoys when.

    Args:
        required: node ids of the tests that must pass.
        files: files of tests, relative to the repository -> their content.
        random: decides; what it decides must not be guessed.
        rounds: how many, 1 or more; 1: no decoys.
    """
    known = {path: Decoys(text) for path, content in files.items() if (text := _text(content)) is not None}
    functions = functions_of(required, known)
    turns = _turns(sorted(functions), known, random, rounds)
    return [_round(turn, required, functions, known) for turn in turns]


def covered(rounds: Sequence[Round]) -> frozenset[str]:
    """The tests that are a decoy in some round."""
    return frozenset(id for one in rounds for id in one.decoys)


_Turn = dict[tuple[str, str], Alteration]
"""(File, function) -> what makes it a decoy in this round."""


def _turns(
    functions: Sequence[tuple[str, str]], known: Mapping[str, Decoys], random: Random, rounds: int
) -> list[_Turn]:
    turns: list[_Turn] = [{} for _ in range(rounds)]
    for file, function in functions:
        as_it_is = random.randrange(rounds)
        for index, turn in enumerate(turns):
            found = None if index == as_it_is else known[file].alterations(function, random)
            if found is not None:
                turn[file, function] = found
    return turns


def _round(
    turn: _Turn, required: Sequence[str], functions: Mapping[tuple[str, str], list[str]], known: Mapping[str, Decoys]
) -> Round:
    decoys = frozenset(id for key in turn for id in functions[key])
    files = {file for file, _ in turn}
    sources = {file: known[file].altered(list(_of(turn, file))).encode() for file in files}
    return Round(sources, frozenset(required) - decoys, decoys)


def _of(turn: _Turn, file: str) -> Iterator[Alteration]:
    return (alteration for (owner, _), alteration in turn.items() if owner == file)


def _text(content: bytes) -> str | None:
    """`None`: it is not UTF-8, or begins with a mark."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
