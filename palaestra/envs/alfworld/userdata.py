"""The user's own ALFWorld games: `game.tw-pddl` files in the layout that `alfworld-download` makes.

Listing them reads no more than whether a game can be solved; a game is read, with suspicion, when it is played, so that
a bad file spoils its own episode only.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from palaestra.envs.alfworld.game import KINDS
from palaestra.envs.datafiles import check_file, read_json
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import DataError, UnknownNameError

VARIABLE = "ALFWORLD_DATA"
"""Environment variable: ALFWorld's own, the folder that holds `json_2.1.1`."""
FOLDERS = {
    "train": "train",
    "valid_seen": "valid_seen",
    "valid_unseen": "valid_unseen",
    "validation": "valid_seen",
    "test": "valid_unseen",
}
"""Split -> folder. The last two are our names of ALFWorld's."""
GAME, TRAJECTORY = "game.tw-pddl", "traj_data.json"
MOST_GAME, MOST_TRAJECTORY = 1 << 23, 1 << 26
"""Bytes of the two files, many times those of real ones."""
MOST_GAMES = 100_000
MAX_TURNS = 50
"""ALFWorld's usual limit."""
UNPLAYED = ("movable", "Sliced")
"""Words in the names of trials that the original leaves out."""


class GameFile(msgspec.Struct, frozen=True):
    """What a `game.tw-pddl` holds."""

    pddl_domain: str
    grammar: str
    pddl_problem: str
    solvable: bool


class _Solvable(msgspec.Struct, frozen=True):
    solvable: bool | None = None


class _Trajectory(msgspec.Struct, frozen=True):
    task_type: str


class UserGame(NamedTuple):
    """A game that may be loaded."""

    data: dict[str, str]
    """What `textworld.envs.PddlEnv.load` takes."""
    kind: str
    """Its task type."""


def load_original(split: str, data: str | Path | None = None) -> TaskSuite:
    """The user's games of one split that the original would play, by their paths; `max_turns` is ALFWorld's 50.

    Args:
        split: `train`, `valid_seen` or `valid_unseen`; `validation` and `test` are the last two.
        data: the folder that `ALFWORLD_DATA` names, or its `json_2.1.1`; default: that variable.

    Raises:
        UnknownNameError: no such split.
        DataError: no folder is named, or it holds no such games.
    """
    if split not in FOLDERS:
        raise UnknownNameError("split of alfworld/original", split, FOLDERS)
    root = find_root(data)
    trials = _trials(root / FOLDERS[split])
    named = {} if data is None else {"data": os.path.abspath(os.path.expanduser(data))}

    def build(index: int) -> Task:
        trial = trials[index]
        params = {"trial": f"{FOLDERS[split]}/{trial}", "max_turns": MAX_TURNS, **named}
        kind = trial.partition("-")[0]
        kind = kind if kind in KINDS else ""
        return Task(env="alfworld/Original-v0", name=trial, split=split, params=params, kind=kind)

    return TaskSuite("alfworld/original", split, len(trials), build)


def find_root(data: object = None) -> Path:
    """The folder with a folder for each split, below `data` or what `ALFWORLD_DATA` names.

    Raises:
        DataError: neither names one.
    """
    named = data or os.environ.get(VARIABLE)
    if not isinstance(named, str | Path) or "\0" in str(named):
        raise DataError(f"ALFWorld's games are not shipped: pass data=FOLDER, or set {VARIABLE} to it")
    above = Path(os.path.expanduser(named))
    for folder in (above / "json_2.1.1", above):
        if any(os.path.isdir(folder / split) for split in FOLDERS.values()):
            return folder.resolve()
    raise DataError(
        f"{str(named)[:500]} holds no games of ALFWorld: it has no json_2.1.1 with train or valid_seen in it"
    )


@lru_cache(8)
def _trials(folder: Path) -> tuple[str, ...]:
    """TASK/TRIAL of every game in the folder of a split; a game that cannot even be read stays in the list."""
    found = []
    for game in sorted(folder.glob(f"*/*/{GAME}")):
        trial = game.relative_to(folder).parent.as_posix()
        if (game.parent / TRAJECTORY).exists() and not any(word in trial for word in UNPLAYED) and _playable(game):
            found.append(trial)
        if len(found) > MOST_GAMES:
            raise DataError(f"{folder} has more than {MOST_GAMES} games, which is the limit")
    if not found:
        raise DataError(f"{folder} has no games: no TASK/TRIAL/{GAME} that is solvable, with {TRAJECTORY} beside it")
    return tuple(found)


def _playable(game: Path) -> bool:
    """Whether the file says so, or cannot be read, which whoever plays it will be told."""
    try:
        return read_json(game, _Solvable, most_bytes=MOST_GAME).solvable is True
    except DataError:
        return True


def read_game(params: dict[str, Any]) -> UserGame:
    """The game that a task's `trial` names, below `data`.

    Raises:
        DataError: the path leads elsewhere, a file is missing, damaged, too large or something else, or the game is not
            solvable or of a type that is not played.
    """
    trial, root = params["trial"], find_root(params.get("data"))
    folder = _inside(root, root, trial)
    name = str(trial)[:500]
    game = read_json(_inside(root, folder, GAME), GameFile, most_bytes=MOST_GAME)
    if not game.solvable:
        raise DataError(f"the game {name} is marked as not solvable")
    kind = read_json(_inside(root, folder, TRAJECTORY), _Trajectory, most_bytes=MOST_TRAJECTORY).task_type
    if kind not in KINDS:
        raise DataError(f"the game {name} is of type {kind[:80]!r}, which is not played")
    return UserGame({key: getattr(game, key) for key in ("pddl_domain", "grammar", "pddl_problem")}, kind)


def _inside(root: Path, folder: Path, name: object) -> Path:
    """`folder / name`, which lies below `root` even after all links are followed."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > 1000:
        raise DataError(f"the trial of an alfworld game is SPLIT/TASK/TRIAL, not {str(name)[:80]!r}")
    try:
        path = (folder / name).resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name} cannot be followed: {error}") from None
    if not path.is_relative_to(root):
        raise DataError(f"{name} leads out of {root}")
    return check_file(path) if name in (GAME, TRAJECTORY) else path
