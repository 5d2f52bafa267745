"""How a task is solved: the package's commands, found once and kept in a file, and the way back to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from palaestra.envs.hashing import digest
from palaestra.envs.scienceworld.pool import POOL
from palaestra.envs.scienceworld.tasks import EASY, Setting
from palaestra.errors import MissingExtraError
from palaestra.files import cache_root, replace_text


class Done(NamedTuple):
    """A command that was done."""

    command: str
    before: str
    """Name of the place."""
    after: str
    understood: bool


@lru_cache(1024)
def solution(setting: Setting) -> tuple[str, ...]:
    """The package's commands that solve a task from its start. Working them out takes Java up to some seconds.

    They are kept in `scienceworld` in the cache, `$PALAESTRA_CACHE` or `~/.cache/palaestra`. A file there that holds
    something else is made anew.

    Raises:
        EnvError: there is no Java.
        MissingExtraError: scienceworld is not installed.
        PalaestraError: the cache cannot be written.
    """
    path = _path(setting)
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except (OSError, msgspec.DecodeError):
        pass
    simulator = POOL.borrow()
    try:
        found = simulator.solution(setting)
    finally:
        POOL.give_back(simulator)
    replace_text(path, msgspec.json.encode(found).decode())
    return found


def advise(solution: Sequence[str], done: Sequence[Done], setting: Setting) -> str:
    """The next command of the solution after `done`; first the way back, for who has gone elsewhere.

    The solution's commands count in their order, where they were understood. Other commands are taken to be harmless,
    which those that use something up are not. Past its end there is nothing to do but wait.
    """
    following, away = 0, list[str]()
    for command, before, after, understood in done:
        if not away and following < len(solution) and command == solution[following] and understood:
            following += 1
        elif after in away:
            del away[away.index(after) :]
        elif after != before:
            away.append(before)
    if not away:
        return (*solution, "wait")[following]
    teleports = setting.simplifications == EASY or "teleportAction" in setting.simplifications
    return f"teleport to {away[0]}" if teleports else f"go to {away[-1]}"


def _path(setting: Setting) -> Path:
    try:
        version = metadata.version("scienceworld")
    except metadata.PackageNotFoundError:
        raise MissingExtraError("scienceworld", "scienceworld") from None
    name = f"{setting.task}-{setting.variation}-{digest(version, *setting)}.json"
    return cache_root() / "scienceworld" / name
