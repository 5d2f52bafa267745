"""BabyAI's levels by name, their games by seed, and the split that a game belongs to."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from palaestra.envs.hashing import digest
from palaestra.errors import DataError, UnknownNameError, require
from palaestra.seeds import derive_seed

if TYPE_CHECKING:
    from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

SPLITS = {"train": range(0, 80), "validation": range(80, 90), "test": range(90, 100)}
"""Split -> the hundredths of all games that are its own."""

_TRIES = 2000
"""Games looked at for one of the wanted split; a tenth of them is of each of the small ones."""
_REMEMBERED = 10_000
_found: dict[tuple[str, str, int], int] = {}
"""Seeds of games that were looked for: the runs of a group, and evaluations before and after, play the same ones."""
_ID = re.compile(r"BabyAI-(?P<name>\w+)-v\d+")


@lru_cache(1)
def levels() -> dict[str, str]:
    """Level -> id in minigrid's registry: `GoToLocal` -> `BabyAI-GoToLocal-v0`.

    Raises:
        MissingExtraError: minigrid is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports it for its pictures
    require("minigrid", "babyai")
    import gymnasium

    found = {id: _ID.fullmatch(id) for id in gymnasium.registry}
    return {match["name"]: id for id, match in found.items() if match}


def check_level(name: str) -> str:
    """`name` itself.

    Raises:
        UnknownNameError: there is no such level.
        MissingExtraError: minigrid is not installed.
    """
    if name not in levels():
        raise UnknownNameError("level of babyai", name, levels())
    return name


def begin(level: str, seed: int) -> RoomGridLevel:
    """A game of `level`, reset with `seed`."""
    game: RoomGridLevel = _quiet_class(level)(**_spec(level).kwargs)
    game.reset(seed=seed)
    return game


def begin_of_split(level: str, split: str, index: int) -> tuple[RoomGridLevel, int]:
    """Game `index` of a split, and its seed.

    What is there at the start decides which split a game belongs to, so that no game is in two, whatever its seed.

    Raises:
        UnknownNameError: no such split.
        DataError: the level has too few games to fill the split.
    """
    if split not in SPLITS:
        raise UnknownNameError("split of babyai", split, SPLITS)
    key = level, split, index
    if key in _found:
        return begin(level, _found[key]), _found[key]
    for attempt in range(_TRIES):
        seed = derive_seed(index, level, split, attempt) % 2**31
        game = begin(level, seed)
        if int(start_hash(game), 16) % 100 in SPLITS[split]:
            if len(_found) >= _REMEMBERED:
                _found.clear()
            _found[key] = seed
            return game, seed
    raise DataError(f"babyai/{level} has no game for the split {split!r} among {_TRIES}; it has too few different ones")


def start_hash(game: RoomGridLevel) -> str:
    """A hash of the mission, of the grid, and of where the agent stands and what it carries."""
    x, y = game.agent_pos
    carried = game.carrying.encode() if game.carrying else ()
    return digest(game.mission, game.grid.encode().tobytes(), int(x), int(y), int(game.agent_dir), carried)


def _spec(level: str) -> Any:
    import gymnasium

    return gymnasium.spec(levels()[check_level(level)])


@lru_cache(None)
def _quiet_class(level: str) -> type[RoomGridLevel]:
    """The level's class, which does not print each game that it drew and rejected, and sees only when it is asked.

    `step` would look around for an array that nobody reads; `words` looks for itself.
    """
    from minigrid.core.roomgrid import RoomGrid
    from minigrid.envs.babyai.core.roomgrid_level import RejectSampling

    def _gen_grid(self: RoomGridLevel, width: int, height: int) -> None:
        while True:
            try:
                RoomGrid._gen_grid(self, width, height)
                self.gen_mission()
                self.validate_instrs(self.instrs)
                break
            except (RecursionError, RejectSampling):
                continue
        self.surface = self.mission = self.instrs.surface(self)

    module, _, name = _spec(level).entry_point.partition(":")
    base = getattr(import_module(module), name)
    return type(name, (base,), {"_gen_grid": _gen_grid, "gen_obs": lambda self: {}, "__module__": base.__module__})
