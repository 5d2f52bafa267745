"""Problem statements: what an agent is told, from the release notes or from the tests that fail."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping, Sequence

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
    """The code of the test function that a node id names; empty where it cannot be found."""
    file, *names = id.partition("[")[0].split("::")
    try:
        content = tests[file].decode()
        body: list[ast.stmt] = ast.parse(content).body
    except (KeyError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return ""
    found: ast.stmt | None = None
    for name in names:
        found = _named(body, name)
        if found is None:
            return ""
        body = getattr(found, "body", [])
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    start = min([found.lineno, *(mark.lineno for mark in found.decorator_list)])
    lines = content.splitlines()[start - 1 : found.end_lineno]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "    ..."]
    return textwrap.dedent("\n".join(lines))


def _named(body: Sequence[ast.stmt], name: str) -> ast.stmt | None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return next((s for s in body if isinstance(s, kinds) and s.name == name), None)
