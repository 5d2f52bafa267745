"""What an episode is to play: a game and a limit of turns, from a task or a seed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.envs.alfworld.game import Game, check_game
from palaestra.envs.alfworld.generate import LEVELS, generate
from palaestra.envs.tasks import Task
from palaestra.errors import DataError

MAX_TURNS = 50
"""ALFWorld's usual episode limit, for whole games that name none."""


def assignment(task: Task | None, seed: int | None, level: str) -> tuple[Game, int]:
    """The game and the most turns.

    Args:
        task: its `params` hold either `level`, `split` and `index` of a generated game, or a whole `game`; `max_turns`
            caps the episode.
        seed: without a task, draws a training game of `level`; `None` draws any.
        level: see `seed`.

    Raises:
        DataError: the params do not describe a game that can be played.
    """
    params = task.params if task else {"level": level, "split": "train", "index": _index(seed)}
    return _game(params), _max_turns(params)


def _index(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(1 << 31)
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest(), "big")


def _game(params: Mapping[str, Any]) -> Game:
    try:
        if "game" in params:
            return check_game(msgspec.convert(params["game"], Game))
        return generate(str(params["level"]), str(params["split"]), int(params["index"]))
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the task's params do not describe a household game: {error}") from error


def _max_turns(params: Mapping[str, Any]) -> int:
    turns = params.get("max_turns")
    if turns is None:
        return LEVELS[str(params["level"])].max_turns if "game" not in params else MAX_TURNS
    if not isinstance(turns, int) or turns < 1:
        raise DataError(f"max_turns of a household game is a positive whole number, not {turns!r}")
    return turns
