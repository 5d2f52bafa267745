"""Problem statements: what an agent is told, from the release notes or from the tests that fail."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOST_TESTS = 5
"""Failing tests whose code is shown."""
MOST_LINES = 60
"""Lines of one test that are shown."""


def for_release(project: str, before: str, notes: str, command: str) -> str:
    """The statement of a task that asks for what the next release brought."""
    return (
        f"This repository holds {project} {before}. Bring about what the notes of its next release say:\n\n"
        f"{notes}\n\n"
        "Change the package's code, not its tests: new tests that are not shown to you will judge the result, together "
        f"with those that pass now. The tests that are there run by\n\n    {command}"
    )


def for_hunk(project: str, version: str, tests: Mapping[str, bytes], failing: Sequence[str], command: str) -> str:
    """The statement of a task that asks to mend what lets tests fail.

    Args:
        project: the package.
        version: of it.
        tests: its files of tests.
        failing: ids of those that fail.
        command: runs the tests.
    """
    listed = "\n".join(f"- `{id}`" for id in failing)
    shown = dict.fromkeys(id.partition("[")[0] for id in failing)
    code = "\n\n".join(filter(None, (source_of(tests, id) for id in list(shown)[:MOST_TESTS])))
    return (
        f"Something in this repository, {project} {version}, is broken. "
        f"{'This test fails' if len(failing) == 1 else 'These tests fail'} and should pass:\n\n{listed}\n\n"
        + (f"```python\n{code}\n```\n\n" if code else "")
        + "Mend the package's code, not its tests; what passes now must go on to pass. The tests run by\n\n"
        f"    {command}"
    )


def source_of(tests: Mapping[str, bytes], id: str) -> str:
    """The code of the test function that a node id names; empty where it cannot be found.

    A method that is inherited is looked for in the classes of that name in all files of tests.
    """
    file, *names = id.partition("[")[0].split("::")
    if not names:
        return ""
    code = _Code.of(tests.get(file, b""))
    *classes, function = names
    body: Sequence[ast.stmt] = code.body
    for name in classes:
        found = _named(body, name)
        if not isinstance(found, ast.ClassDef):
            return ""
        body = found.body
        if _named(body, function) is None:
            code, body = _inherited(tests, file, found, function)
    test = _named(body, function)
    return code.lines_of(test) if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) else ""


class _Code(NamedTuple):
    """A file of Python; empty where it is none."""

    lines: Sequence[str]
    body: Sequence[ast.stmt]

    @classmethod
    def of(cls, content: bytes) -> _Code:
        try:
            text = content.decode()
            return cls(text.splitlines(), ast.parse(text).body)
        except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            return cls((), ())

    def lines_of(self, test: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """Its lines, with what decorates it."""
        start = min([test.lineno, *(mark.lineno for mark in test.decorator_list)])
        lines = self.lines[start - 1 : test.end_lineno]
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], "    ..."]
        return textwrap.dedent("\n".join(lines))


def _inherited(
    tests: Mapping[str, bytes], file: str, heir: ast.ClassDef, function: str
) -> tuple[_Code, Sequence[ast.stmt]]:
    """The file and the class that `heir` has a method from; its own file is looked through first."""
    wanted, seen = [_last(base) for base in heir.bases], set[str]()
    files = [_Code.of(tests[path]) for path in sorted(tests, key=lambda path: path != file) if path.endswith(".py")]
    while wanted:
        name = wanted.pop(0)
        if name in seen:
            continue
        seen.add(name)
        for code in files:
            found = _named(code.body, name)
            if not isinstance(found, ast.ClassDef):
                continue
            if _named(found.body, function) is not None:
                return code, found.body
            wanted += [_last(base) for base in found.bases]
    return _Code((), ()), ()


def _last(base: ast.expr) -> str:
    """`B` of a base that is written `B` or `a.B`."""
    return base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""


def _named(body: Sequence[ast.stmt], name: str) -> ast.stmt | None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return next((s for s in body if isinstance(s, kinds) and s.name == name), None)
