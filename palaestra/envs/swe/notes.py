"""Release notes: the section of a version, found by its heading in a file that people wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence

_VERSION = r"v?\d+(?:\.\d+)+(?:\.?(?:a|b|rc|dev|post)\d+)?"
_HEADING = re.compile(
    rf"(?:#+\s*|=+\s*|[-*]\s+|\.\.\s+_?)?(?:(?:version|release|changes in(?: version)?)\s*:?\s*)?[`\[*\"]*"
    rf"(?P<version>{_VERSION})(?![\w.]*\w)",
    re.IGNORECASE,
)
MOST = 8000
"""Characters of a section."""


def section(notes: str, version: str) -> str:
    """What the notes say of a version, without its heading; empty where they say nothing.

    A heading is a line that begins, after the marks of a heading or a list, with a version.
    """
    lines = notes.replace("\r\n", "\n").split("\n")
    heads = [(number, found) for number, line in enumerate(lines) if (found := _heading(line))]
    for position, (number, found) in enumerate(heads):
        if _same(found, version):
            end = heads[position + 1][0] if position + 1 < len(heads) else len(lines)
            if body := _body(lines, number, end):
                return body[:MOST]
    return ""


def _heading(line: str) -> str:
    match = _HEADING.match(line)
    return match["version"] if match else ""


def _same(found: str, version: str) -> bool:
    return found.lower().removeprefix("v") == version


def _body(lines: Sequence[str], start: int, end: int) -> str:
    """The lines between two headings, without rules under headings; with a list's item, also the rest of its line."""
    first = []
    if re.match(r"[-*]\s", lines[start]):
        first = [_HEADING.sub("", lines[start], count=1).strip(" :`*")]
    body = [line.rstrip() for line in lines[start + 1 : end] if not re.fullmatch(r"\s*([=\-~^*#\"+])\1{2,}\s*", line)]
    return "\n".join([*first, *body]).strip()
