"""What the agent is shown of what its code printed."""

from __future__ import annotations

import re

from palaestra.sandboxes.commands import Output

_ADDRESS = re.compile(r"(?<= at 0x)[0-9a-f]{6,16}\b")
"""In Python's description of an object; it differs from run to run."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Colours and the like, which no model reads."""


def shown(raw: bytes, most: int) -> str:
    """Text of at most about `most` characters: the beginning and the end of what is longer, without addresses."""
    text = _plain(raw)
    return text if len(text) <= most else _ends(text, text, most // 2, len(text) - 2 * (most // 2))


def shown_output(output: Output, most: int) -> str:
    """The same of a stream, of which the middle may have been dropped before."""
    if not output.dropped:
        return shown(output.head + output.tail, most)
    head, tail, half = _plain(output.head), _plain(output.tail), most // 2
    return _ends(head, tail, half, output.dropped + max(0, len(head) - half) + max(0, len(tail) - half))


def _ends(head: str, tail: str, half: int, left_out: int) -> str:
    return f"{head[:half]}\n[{left_out} characters left out]\n{tail[max(0, len(tail) - half) :]}"


def _plain(raw: bytes) -> str:
    return _ADDRESS.sub("...", _CONTROL.sub("", raw.decode("utf-8", "replace")))
