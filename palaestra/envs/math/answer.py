r"""Which part of a solution is the answer: the last `\boxed{...}` or `<answer>...</answer>`, and nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

LONGEST_SOLUTION = 1 << 20
"""Characters; a longer solution is cut at its beginning, for the answer is at the end."""
LONGEST_ANSWER = 1000
"""Characters; the longest answer of MATH-500 has 53."""
MOST_BRACKETS = 100
"""Opened in an answer; every level of them costs the judge dearly."""
_BOXES = (r"\boxed", r"\fbox")
_OPEN, _CLOSE = "<answer>", "</answer>"


def said(action: object) -> str | None:
    """The text of an action: itself, or the content of a chat message; `None` where it has none."""
    if isinstance(action, Mapping):
        action = action.get("content")
    return action[-LONGEST_SOLUTION:] if isinstance(action, str) else None


def last_answer(solution: str) -> str | None:
    r"""What the last `\boxed{...}` (or `\fbox`) or `<answer>...</answer>` of `solution` holds; the later one counts.

    An answer in an earlier one does not count, so that guessing several times does not pay; nor does one that is never
    closed. In `<answer>\boxed{3}</answer>` the box begins later. Reads each character a bounded number of times.
    """
    tag = solution.rfind(_OPEN)
    box = max(solution.rfind(name) for name in _BOXES)
    if tag < 0 and box < 0:
        return None
    if box > tag:
        return _boxed(solution, box)
    end = solution.find(_CLOSE, tag)
    return solution[tag + len(_OPEN) : end].strip() if end >= 0 else None


def readable(answer: str) -> bool:
    """Whether `answer` is one that a person could read and a judge should.

    It is neither empty nor too long nor nested too deeply, its braces match, and it has no character that cannot be
    seen: zero-width, direction marks, control, private use, half of a surrogate pair.
    """
    if not answer or len(answer) > LONGEST_ANSWER or not _balanced(answer):
        return False
    if sum(map(answer.count, "([{")) > MOST_BRACKETS:
        return False
    return all(unicodedata.category(each)[0] != "C" or each in "\n\t" for each in answer)


def _boxed(text: str, start: int) -> str | None:
    opening = text.find("{", start)
    if opening < 0 or text[start:opening].lstrip("\\").strip() not in ("boxed", "fbox"):
        return None
    depth, place = 0, opening
    while place < len(text):
        each = text[place]
        if each == "\\":
            place += 1  # what it escapes is no brace
        elif each == "{":
            depth += 1
        elif each == "}":
            depth -= 1
            if depth == 0:
                return text[opening + 1 : place].strip()
        place += 1
    return None


def _balanced(answer: str) -> bool:
    depth = place = 0
    while place < len(answer):
        if answer[place] == "\\":
            place += 1
        else:
            depth += {"{": 1, "}": -1}.get(answer[place], 0)
        if depth < 0:
            return False
        place += 1
    return depth == 0 and place == len(answer)  # nor a backslash at the end, which would escape what follows
