"""Token ids as the pieces of text that a person can read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Decode = Callable[[list[int]], list[str]]
"""Token ids to texts, one per id."""

_CONTEXT = 8


def run_decoder(run: Path) -> Decode | None:
    """A decoder from the run's own `model/tokenizer.json`; `None` without that file or the `tokenizers` package."""
    file = run / "model" / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        library: Any = importlib.import_module("tokenizers")
        tokenizer = library.Tokenizer.from_file(str(file))
    except Exception:  # the library raises plain `Exception` for a bad file; the report can do without texts
        return None
    return lambda ids: pieces(tokenizer.decode, ids)


def pieces(decode: Callable[..., str], ids: list[int]) -> list[str]:
    """The text that each id adds to those before it, so that spaces land where the tokenizer puts them."""
    return [_piece(decode, ids[max(0, end - _CONTEXT) : end], token) for end, token in enumerate(ids)]


def _piece(decode: Callable[..., str], context: list[int], token: int) -> str:
    before = decode(context, skip_special_tokens=False)
    after = decode([*context, token], skip_special_tokens=False)
    return after[len(before) :] if after.startswith(before) else decode([token], skip_special_tokens=False)
