"""Game files are looked at before anything runs them."""

from __future__ import annotations

import json
from pathlib import Path

from palaestra.errors import DataError

LARGEST = 512 * 1024
"""Bytes of a story file of version 8, by its format."""
LARGEST_JSON = 32 * 1024 * 1024
HEADER = 64
_VERSION, _LENGTH, _CHECKSUM = 0x00, 0x1A, 0x1C
"""Places in the header: the version, the length in units of 8 bytes, and the sum of all bytes after the header."""


def checked(path: str | Path) -> Path:
    """`path`, if a whole story file of version 8 lies there and the JSON that TextWorld wrote with it lies beside it.

    Raises:
        DataError: it is missing, truncated, damaged, or something else; the message says which.
    """
    game = Path(path).expanduser().absolute()
    if game.suffix != ".z8":
        raise DataError(f"{game} is not a TextWorld game: its name does not end in .z8")
    _check_story(game, _read(game, LARGEST))
    _check_json(game.with_suffix(".json"))
    return game


def _check_story(game: Path, story: bytes) -> None:
    if len(story) < HEADER or story[_VERSION] != 8:
        raise DataError(f"{game} is not a story file of version 8")
    length = 8 * int.from_bytes(story[_LENGTH : _LENGTH + 2], "big")
    if length < HEADER or len(story) < length:
        raise DataError(f"{game} is truncated: it has {len(story)} bytes and should have {length}")
    if sum(story[HEADER:length]) % 2**16 != int.from_bytes(story[_CHECKSUM : _CHECKSUM + 2], "big"):
        raise DataError(f"{game} is damaged: its checksum differs")


def _check_json(path: Path) -> None:
    text = _read(path, LARGEST_JSON)
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged or truncated: {error}") from None
    missing = {"version", "world", "quests", "infos", "KB"} - set(described if isinstance(described, dict) else ())
    if missing:
        raise DataError(f"{path} is not TextWorld's description of a game: it lacks {', '.join(sorted(missing))}")


def _read(path: Path, most: int) -> bytes:
    try:
        if not path.is_file():
            raise DataError(f"there is no file {path}; a game is a .z8 file with its .json beside it")
        if path.stat().st_size > most:
            raise DataError(f"{path} has {path.stat().st_size} bytes; a game's has at most {most}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
