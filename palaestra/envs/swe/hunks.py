"""Differences between two versions of a source tree, hunk by hunk: named, taken back one at a time, written as patches.

A hunk is what `diff -u` shows as one: changes with at most six unchanged lines between them, and three around them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

CONTEXT = 3
"""Unchanged lines shown before and after a hunk."""


class Hunk(Struct, frozen=True):
    """One place where two versions of a file differ, with its context. Lines end as they do in the file."""

    old_start: int
    """Index of its first line in the old version."""
    old: tuple[str, ...]
    """Its lines there."""
    new_start: int
    """Index of its first line in the new version."""
    new: tuple[str, ...]
    """Its lines there."""
    body: tuple[str, ...]
    """Its lines as in a patch: with ` `, `-` or `+` before each."""

    @property
    def sha256(self) -> str:
        """Of its body: tells whether it is still the hunk that somebody meant."""
        return hashlib.sha256("".join(self.body).encode()).hexdigest()

    @property
    def changed(self) -> int:
        """Lines added and removed that are not blank."""
        return sum(line[0] != " " and bool(line[1:].strip()) for line in self.body)


def hunks(old: str, new: str) -> list[Hunk]:
    """Where two versions of a file differ, from the top."""
    before, after = lines(old), lines(new)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [_hunk(before, after, group) for group in matcher.get_grouped_opcodes(CONTEXT)]


def revert(new: str, hunk: Hunk) -> str:
    """The new version of the file with this one hunk as in the old.

    Raises:
        ValueError: the hunk is of another file.
    """
    after = lines(new)
    end = hunk.new_start + len(hunk.new)
    if tuple(after[hunk.new_start : end]) != hunk.new:
        raise ValueError("the hunk is not of this file")
    return "".join([*after[: hunk.new_start], *hunk.old, *after[end:]])


def patch(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> str:
    """A patch in git's format that makes `old` into `new`.

    Raises:
        ValueError: a file that differs is not text in UTF-8.
    """
    paths = sorted({*old, *new})
    return "".join(_file_patch(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path))


def text(content: bytes) -> str:
    """Content of a text file.

    Raises:
        ValueError: it is not text in UTF-8.
    """
    if b"\0" in content:
        raise ValueError("it is binary")
    return content.decode()


def lines(content: str) -> list[str]:
    """Lines with their ends. Unlike `str.splitlines`, only a line feed ends one, as in git."""
    parts = content.split("\n")
    last = parts.pop()
    return [part + "\n" for part in parts] + ([last] if last else [])


def _hunk(before: Sequence[str], after: Sequence[str], group: Sequence[tuple[str, int, int, int, int]]) -> Hunk:
    (_, i, _, j, _), (_, _, i_end, _, j_end) = group[0], group[-1]
    body: list[str] = []
    for kind, i1, i2, j1, j2 in group:
        if kind == "equal":
            body += [" " + line for line in before[i1:i2]]
            continue
        body += ["-" + line for line in before[i1:i2]]
        body += ["+" + line for line in after[j1:j2]]
    return Hunk(i, tuple(before[i:i_end]), j, tuple(after[j:j_end]), tuple(body))


def _file_patch(path: str, old: bytes | None, new: bytes | None) -> str:
    head = f"diff --git a/{path} b/{path}\n"
    if old is None:
        head += "new file mode 100644\n"
    if new is None:
        head += "deleted file mode 100644\n"
    before, after = text(old or b""), text(new or b"")
    if before == after:  # an empty file comes or goes
        return head
    head += f"--- {'/dev/null' if old is None else 'a/' + path}\n+++ {'/dev/null' if new is None else 'b/' + path}\n"
    return head + "".join(line for hunk in hunks(before, after) for line in _printed(hunk))


def _printed(hunk: Hunk) -> Iterator[str]:
    yield f"@@ -{_range(hunk.old_start, hunk.old)} +{_range(hunk.new_start, hunk.new)} @@\n"
    for line in hunk.body:
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _range(start: int, part: Sequence[str]) -> str:
    return f"{start + 1 if part else start},{len(part)}"
