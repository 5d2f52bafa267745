"""ALFRED's own trials (Shridhar et al., 2020) as games: the user's copy of their data, in the scenes of `alfworld`.

A trial gives its objects' positions, a scene of the installed `alfworld` package its receptacles'; an object lies in
the nearest receptacle that may hold it. These initial states are *not* byte-equal to ALFWorld's own, so results on
them must not be compared with published ones.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import math
import os
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import KINDS, Game, Goal, Kind, check_game
from palaestra.envs.alfworld.oracle import plan
from palaestra.envs.alfworld.world import World
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import DataError, MissingExtraError, UnknownNameError

SPLITS = ("train", "valid_seen")
MAX_TURNS = 50
LONGEST_LINE = 1 << 20
"""Bytes of a line, a hundred times those of a real one."""

Position = tuple[float, float, float]


class Aim(msgspec.Struct, frozen=True):
    """A trial's `pddl_params`."""

    object_target: str
    parent_target: str
    toggle_target: str
    object_sliced: bool


class Lamp(msgspec.Struct, frozen=True):
    """An entry of a trial's `toggled`."""

    objectType: str


class Trial(msgspec.Struct, frozen=True):
    """One line of the data."""

    trial: str
    task_type: str
    pddl_params: Aim
    floor_plan: str
    objects: list[tuple[str, float, float, float]]
    """Type, then x, y and z in metres."""
    toggled: list[Lamp] = []


class Receptacle(NamedTuple):
    """One of a scene's receptacles."""

    kind: str
    position: Position


class Games(NamedTuple):
    """The playable trials of a file."""

    trials: tuple[tuple[str, Game], ...]
    """(trial id, game), in the file's order."""
    dropped: dict[str, int]
    """Why trials are missing -> how many."""


def load_alfred(split: str, data: str | Path | None = None, layouts: str | Path | None = None) -> TaskSuite:
    """ALFRED's trials of one split; `max_turns` is ALFWorld's 50.

    Args:
        split: `train` or `valid_seen`.
        data: folder with `SPLIT.jsonl.gz`, or with `alfred/SPLIT.jsonl.gz`; default: environment variable
            `PALAESTRA_DATA`.
        layouts: folder with `FloorPlanN-openable.json`; default: `PALAESTRA_ALFWORLD_LAYOUTS`, else the installed
            `alfworld` package's (which is not imported).

    Raises:
        UnknownNameError: no such split.
        DataError: there is no such file, or it is damaged; the message names file and line.
        MissingExtraError: no layouts, as `alfworld` is not installed.
    """
    if split not in SPLITS:
        raise UnknownNameError("split of alfworld/alfred", split, SPLITS)
    path, scenes = _trial_file(split, data), _layouts(layouts)
    trials = read_games(path, scenes).trials

    def build(index: int) -> Task:
        name, game = trials[index]
        params = {"game": msgspec.to_builtins(game), "max_turns": MAX_TURNS}
        return Task(env="alfworld/Household-v0", name=name, split=split, params=params, kind=game.goal.kind)

    return TaskSuite("alfworld/alfred", split, len(trials), build)


def read_games(path: Path, layouts: Path) -> Games:
    """The trials of a `.jsonl.gz` file that can be played; read once for each version of the file.

    Raises:
        DataError: see `load_alfred`.
    """
    status = path.stat()
    return _read_games(path, layouts, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _read_games(path: Path, layouts: Path, version: tuple[int, int]) -> Games:
    games, dropped = [], dict.fromkeys(("sliced", "another kind", "already done", "not solvable"), 0)
    for line, trial in _read_trials(path):
        try:
            game = _game(trial, layouts)
        except DataError as error:
            raise DataError(f"{path}, line {line}: {error}") from error
        if isinstance(game, Game):
            games.append((trial.trial, game))
        else:
            dropped[game] += 1
    return Games(tuple(games), dropped)


# -- files -------------------------------------------------------------------------------------------------------------


def _trial_file(split: str, data: str | Path | None) -> Path:
    named = data or os.environ.get("PALAESTRA_DATA")
    if not named:
        raise DataError("ALFRED's trials are not shipped: pass data=FOLDER, or set PALAESTRA_DATA to it")
    for folder in (Path(named) / "alfred", Path(named)):
        path = folder / f"{split}.jsonl.gz"
        if path.is_file():
            return path
    raise DataError(f"neither {named}/alfred nor {named} has {split}.jsonl.gz")


def _layouts(layouts: str | Path | None) -> Path:
    named = layouts or os.environ.get("PALAESTRA_ALFWORLD_LAYOUTS")
    if named:
        folder = Path(named)
    else:
        spec = importlib.util.find_spec("alfworld")
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError("alfworld", "alfworld")
        folder = Path(spec.submodule_search_locations[0]) / "gen" / "layouts"
    if not folder.is_dir():
        raise DataError(f"there is no folder of layouts {folder}")
    return folder


def _read_trials(path: Path) -> Iterator[tuple[int, Trial]]:
    """(line number, trial) of each line."""
    number, decoder = 0, msgspec.json.Decoder(Trial)
    try:
        with gzip.open(path) as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: longer than {LONGEST_LINE} bytes")
                yield number, decoder.decode(line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}, after line {number}: not a whole gzip file ({error})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not a trial ({error})") from error


@lru_cache(maxsize=256)
def read_layout(path: Path) -> tuple[Receptacle, ...]:
    """A scene's receptacles, by type and then by identifier, of the types that the games know.

    An identifier is `Type|x|y|z`, or `Type|x|y|z|Part` for a part that is what one uses, the basin of a sink.

    Raises:
        DataError: the file is missing or no layout.
    """
    try:
        identifiers = sorted(json.loads(path.read_bytes()))
        receptacles = [_receptacle(*identifier.split("|")) for identifier in identifiers]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a scene's layout: {error}") from error
    return tuple(sorted((r for r in receptacles if r.kind in v.FITS), key=lambda r: r.kind))


def _receptacle(kind: str, x: str, y: str, z: str, part: str = "") -> Receptacle:
    return Receptacle(part or kind, (float(x), float(y), float(z)))


# -- games -------------------------------------------------------------------------------------------------------------


def _game(trial: Trial, layouts: Path) -> Game | str:
    """The trial's game, or why there is none."""
    goal = _goal(trial)
    if not isinstance(goal, Goal):
        return goal
    if not trial.floor_plan.isalnum():
        raise DataError(f"{trial.floor_plan!r} is not the name of a scene")
    receptacles = read_layout(layouts / f"{trial.floor_plan}-openable.json")
    if not (_known(goal) and receptacles):
        return "not solvable"
    objects = chain(_objects(trial, receptacles), _lamps(trial, receptacles))
    game = check_game(
        Game(
            receptacles=tuple(_numbered(r.kind for r in receptacles)),
            objects=tuple(_numbered_objects(objects)),
            goal=goal,
            room=trial.floor_plan,
        )
    )
    world = World(game)
    if world.won():
        return "already done"
    return game if plan(world) else "not solvable"


def _goal(trial: Trial) -> Goal | str:
    aim = trial.pddl_params
    if aim.object_sliced:
        return "sliced"
    if trial.task_type not in KINDS:
        return "another kind"
    kind: Kind = KINDS[KINDS.index(trial.task_type)]
    place = aim.toggle_target if kind == "look_at_obj_in_light" else aim.parent_target
    return Goal(kind, aim.object_target, "SinkBasin" if place == "Sink" else place, _stable(trial.trial, 2))


def _known(goal: Goal) -> bool:
    return goal.object in v.OBJECT_TYPES and goal.place in (*v.FITS, *v.LAMPS)


def _objects(trial: Trial, receptacles: tuple[Receptacle, ...]) -> Iterator[tuple[str, int]]:
    """(type, receptacle) of each object that has a place to lie."""
    for kind, *position in trial.objects:
        if not all(map(math.isfinite, position)):
            raise DataError(f"the position of a {kind} is not finite")
        homes = [(math.dist(position, r.position), i) for i, r in enumerate(receptacles) if kind in v.FITS[r.kind]]
        if homes and kind not in v.LAMPS:
            yield kind, min(homes)[1]


def _lamps(trial: Trial, receptacles: tuple[Receptacle, ...]) -> Iterator[tuple[str, int]]:
    """(type, receptacle) of each lamp. The trials do not tell where lamps are: in a scene they always stand on the same
    piece of furniture, chosen by a hash of its name."""
    for kind in dict.fromkeys(lamp.objectType for lamp in trial.toggled):
        stands = [i for i, r in enumerate(receptacles) if kind in v.FITS[r.kind] and r.kind in _STANDS]
        if kind in v.LAMPS and stands:
            yield kind, stands[_stable(f"{trial.floor_plan}/{kind}", len(stands))]


_STANDS = frozenset({"CoffeeTable", "Desk", "DiningTable", "Dresser", "SideTable"})


def _numbered(kinds: Iterator[str]) -> Iterator[tuple[str, int]]:
    """Each type with how many there have been so far: numbers run from 1 by type."""
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
        yield kind, counts[kind]


def _numbered_objects(objects: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    homes = list(objects)
    for (kind, number), (_, place) in zip(_numbered(kind for kind, _ in homes), homes, strict=True):
        yield kind, number, place


def _stable(text: str, n: int) -> int:
    """A number below `n` that depends on `text` alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % n
