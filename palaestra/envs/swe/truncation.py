"""Output cut down to what an agent needs of it: its beginning, its end, and what failed in between."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAST = 400
"""Characters, the fewest that anything can be cut down to."""
_WIDEST = 1000
"""Characters of a line that is kept whole where something has to go."""
_HEAD, _TAIL = 0.25, 0.35
"""Shares of the budget; the rest is for what matters between them."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WEIGHTS: Sequence[tuple[int, re.Pattern[str]]] = (
    (4, re.compile(r"^(FAILED|ERROR|FAIL|not ok)\b|^=+ .*\b(failed|error|passed)\b.* =+$|^\d+ (failed|passed)\b")),
    (3, re.compile(r"^E {2,}\S|^\w[\w.]*(Error|Exception|Warning|Interrupt|Exit)\b|\b(error|fatal|panic)\b:", re.I)),
    (2, re.compile(r"^Traceback |^_{3,} .* _{3,}$|^> {2,}\S|\b(assert|undefined|not found|No such file)\b")),
    (1, re.compile(r'^\s*File ".*", line \d+|^[\w./-]+:\d+:|\bwarning\b', re.I)),
)


def tidied(text: str) -> str:
    """`text` as a terminal would leave it: no colours, of a progress bar only its last state, no control characters."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROL.sub("\ufffd", text)


def shortened(text: str, most: int) -> str:
    """`text`, tidied, in at most `most` characters.

    Where it is longer, its head and its tail stay, and of what is between them the lines that tell of failures: those
    that name failed tests first, then errors, then where they happened. Lines in brackets say how much is left out.

    Args:
        text: anything, for example what a command printed.
        most: characters; fewer than `LEAST` count as `LEAST`.
    """
    text, most = tidied(text), max(most, LEAST)
    if len(text) <= most:
        return text
    lines = text.split("\n")
    width = max(min(_WIDEST, most // 5), most // (len(lines) + 1))
    lines = _folded([_narrowed(line, width) for line in lines])
    if sum(map(len, lines)) + len(lines) - 1 <= most:
        return "\n".join(lines)
    return _joined(lines, _chosen(lines, most), most)


def _narrowed(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    half = max(width // 2 - 30, 0)
    return f"{line[:half]} [... {len(line) - 2 * half} characters left out ...] {line[len(line) - half :]}"


def _folded(lines: Sequence[str]) -> list[str]:
    """One line for more than three equal ones."""
    kept: list[str] = []
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end] == lines[start]:
            end += 1
        count = end - start
        kept += (
            [lines[start]] * count if count <= 3 else [lines[start], f"[... the same line {count - 1} times more ...]"]
        )
        start = end
    return kept


def _chosen(lines: Sequence[str], most: int) -> set[int]:
    """Places of the lines that stay."""
    head = _taken(range(len(lines)), lines, int(most * _HEAD))
    tail = _taken(range(len(lines) - 1, -1, -1), lines, int(most * _TAIL))
    kept = {*head, *tail}
    left = most - sum(len(lines[place]) + 1 for place in kept) - 2 * _MARK
    between = [place for place in range(len(lines)) if place not in kept]
    ranked = sorted(((weight, place) for place in between if (weight := _weight(lines[place]))), key=_heaviest_first)
    for _, place in ranked:
        size = len(lines[place]) + 1 + _MARK  # in the worst case it stands alone, with a mark before it
        if size <= left:
            left -= size
            kept.add(place)
    return kept


_MARK = len("[... 1000000000 lines left out ...]") + 1


def _heaviest_first(ranked: tuple[int, int]) -> tuple[int, int]:
    return -ranked[0], ranked[1]


def _weight(line: str) -> int:
    return next((weight for weight, pattern in _WEIGHTS if pattern.search(line)), 0)


def _taken(places: Sequence[int], lines: Sequence[str], budget: int) -> list[int]:
    taken: list[int] = []
    for place in places:
        budget -= len(lines[place]) + 1
        if budget < 0:
            break
        taken.append(place)
    return taken


def _joined(lines: Sequence[str], kept: set[int], most: int) -> str:
    parts: list[str] = []
    last = -1
    for place in [*sorted(kept), len(lines)]:
        if gap := place - last - 1:
            parts.append(f"[... {gap} line{'s' if gap > 1 else ''} left out ...]")
        if place < len(lines):
            parts.append(lines[place])
        last = place
    return "\n".join(parts)[:most]
