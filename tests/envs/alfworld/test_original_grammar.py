"""Expressions of the original's grammar are computed, and code is not run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip(
    "textworld.envs.pddl.textgen", reason="textworld is not installed: pip install 'palaestra[textworld]'"
)

from palaestra.envs.alfworld.original_grammar import compute
from palaestra.errors import DataError


class Thing(SimpleNamespace):
    def __str__(self) -> str:
        return str(self.name)


THINGS = {"o": Thing(name="mug 1", indefinite="a", id="mug_bar_1"), "r": Thing(name="", id="desk_bar_1")}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("o", "mug 1"),
        ("o.name", "mug 1"),
        ("o.indefinite + ' ' + o.name ", "a mug 1"),
        ("r.name or r.id", "desk_bar_1"),
        ("''", ""),
    ],
)
def test_what_grammars_use_is_computed(expression: str, text: str) -> None:
    assert compute(expression, THINGS) == text


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "o.__class__",
        "o.name.__class__",
        "o.name.upper()",
        "[o for o in ()]",
        "(lambda: 1)()",
        "'a' * 10**9",
        "f'{o}'",
        "o if r else o",
        "x.name",
        "o.colour",
        "1",
        "o, r",
        "",
        "o.name +",
        "(" * 300,
        "'x' + " * 200 + "'x'",
        "o\0",
    ],
)
def test_everything_else_is_refused(expression: str) -> None:
    with pytest.raises(DataError, match="refused"):
        compute(expression, THINGS)
