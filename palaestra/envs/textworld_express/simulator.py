"""One game in the virtual machine: typed turns, and errors where the package answers by texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from palaestra.envs.textworld_express.jvm import borrow, call, give_back, texts
from palaestra.errors import DataError, EnvError, UnknownNameError

GAMES = ("cookingworld", "twc", "coin", "mapreader", "arithmetic", "sorting", "simonsays", "peckingorder")
ENTANGLED = frozenset({"sorting"})
"""Games whose simulators change each other, unless each is apart."""


class Turn(msgspec.Struct, frozen=True, rename={"admissible": "validActions"}):
    """What a reset or a step says."""

    observation: str
    look: str
    """The place as it is now."""
    admissible: list[str]
    """In no particular order."""
    score: float
    """From -1 to 1."""
    tasksuccess: bool
    taskfailure: bool


class Setting(NamedTuple):
    """Which game: everything that fixes it."""

    game: str
    """One of `GAMES`."""
    params: tuple[tuple[str, int], ...]
    """The game's parameters, sorted; those that are missing have the package's own values."""
    fold: str
    """`train`, `dev` or `test`: decides which objects there are."""
    seed: int


def setting(game: str, params: Mapping[str, object], fold: str, seed: int) -> Setting:
    """A setting, as far as it can be checked without the package.

    Raises:
        UnknownNameError: no such game.
        DataError: a parameter is not a whole number.
    """
    if game not in GAMES:
        raise UnknownNameError("game of textworld-express", game, GAMES)
    own: list[tuple[str, int]] = []
    for name, value in params.items():
        if not isinstance(value, int) or not -(2**31) <= value < 2**31 or not name.isidentifier():
            raise DataError(f"{name} of {game} is a whole number, not {value!r}")
        own.append((name, int(value)))  # which makes 1 of True
    return Setting(game, tuple(sorted(own)), fold, seed)


class Simulator:
    """One game at a time; others in the same virtual machine do not touch it."""

    def __init__(self, game: str) -> None:
        """One that can begin `game`.

        Raises:
            EnvError: there is no Java, or it does not start.
            MissingExtraError: textworld-express is not installed.
        """
        self._apart = game in ENTANGLED
        self._jvm, self._java = borrow(self._apart)

    def suits(self, game: str) -> bool:
        """Whether it can begin `game` and its virtual machine still runs."""
        return self._apart == (game in ENTANGLED) and self._jvm.alive

    def close(self) -> None:
        """Let others use what it is made of. It must not be used again."""
        give_back(self._jvm, self._java, self._apart)

    def begin(self, setting: Setting, solved: bool = False) -> Turn:
        """Begin a game; `solved` has the package work out its solution, which takes up to a tenth of a second.

        A simulator that is not apart must not begin an entangled game.

        Raises:
            EnvError: the game has no such parameter, or not this value of it.
        """
        params = ",".join(f"{name}={value}" for name, value in setting.params)
        refusal = call(self._java.load, setting.game, params)
        if not refusal:
            text = call(self._java.generateNewGameJSON, setting.seed, setting.fold, solved)
            refusal = call(self._java.errorStr)
        if refusal:
            raise EnvError(f"TextWorldExpress refuses {setting.game} with {params!r}: {refusal.strip()}")
        return msgspec.json.decode(text, type=Turn)

    def step(self, action: str) -> Turn:
        """Do one command; what it does not know it answers."""
        return msgspec.json.decode(call(self._java.stepJSON, action), type=Turn)

    def task(self) -> str:
        """What is to be done."""
        return str(call(self._java.getTaskDescription))

    def solution(self) -> tuple[str, ...]:
        """The commands that solve the game from its start, if it was begun `solved`."""
        return texts(call(self._java.getGoldActionSequence))


@lru_cache(1024)
def solution(setting: Setting) -> tuple[str, ...]:
    """The commands that solve a game from its start, found in a simulator of their own."""
    simulator = Simulator(setting.game)
    simulator.begin(setting, solved=True)
    found = simulator.solution()
    simulator.close()
    return found
