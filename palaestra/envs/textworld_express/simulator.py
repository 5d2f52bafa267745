"""One game in the virtual machine: typed turns, and errors where the package answers by texts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import msgspec

from palaestra.envs.java.machine import Jvm
from palaestra.envs.textworld_express.jvm import MACHINE, close_files, make_interface, texts
from palaestra.errors import DataError, EnvError, UnknownNameError, WorkerError

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

    def __init__(self, apart: bool) -> None:
        self.apart = apart
        """Whether it can begin entangled games."""
        self.loaded: tuple[str, str] | None = None
        """The game that it can begin at once, and its parameters."""
        self.jvm = MACHINE.running()
        self._java = make_interface(self.jvm, apart)

    @property
    def alive(self) -> bool:
        """Whether its virtual machine still runs."""
        return self.jvm.alive

    def suits(self, game: str) -> bool:
        """Whether it can begin `game`."""
        return self.apart == (game in ENTANGLED) and self.alive

    def begin(self, setting: Setting, solved: bool = False) -> Turn:
        """Begin a game; `solved` has the package work out its solution, which takes up to a tenth of a second.

        Raises:
            EnvError: the game has no such parameter, or not this value of it.
        """
        self._load(*_loading(setting))
        text = self.jvm.call(self._java.generateNewGameJSON, setting.seed, setting.fold, solved)
        self._accept(self.jvm.call(self._java.errorStr))
        return msgspec.json.decode(text, type=Turn)

    def _load(self, game: str, params: str) -> None:
        if self.loaded == (game, params):
            return
        self.loaded = None  # stays, should this fail
        refusal = self.jvm.call(self._java.load, game, params)
        _pool.loaded(self.jvm)
        self._accept(refusal)
        self.loaded = game, params

    @staticmethod
    def _accept(refusal: str) -> None:
        if refusal:
            raise EnvError(f"TextWorldExpress refuses: {refusal.strip()}")

    def step(self, action: str) -> Turn:
        """Do one command; what it does not know it answers."""
        return msgspec.json.decode(self.jvm.call(self._java.stepJSON, action), type=Turn)

    def task(self) -> str:
        """What is to be done."""
        return str(self.jvm.call(self._java.getTaskDescription))

    def solution(self) -> tuple[str, ...]:
        """The commands that solve the game from its start, if it was begun `solved`."""
        return texts(self.jvm, self.jvm.call(self._java.getGoldActionSequence))


class Pool:
    """Simulators that nobody uses now. A game that was loaded once begins in a thousandth of a second.

    The package never closes the four files that it reads to load a game. Java's garbage collector does, when it is
    called: now and then, and whenever nobody uses any simulator.
    """

    LOADS = 64
    """After so many, files are closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Simulator] = []
        self._lent = self._loads = 0

    def borrow(self, setting: Setting) -> Simulator:
        """A simulator for `setting`, one that has the game loaded if any has.

        Raises:
            EnvError: there is no Java, or it does not start.
            MissingExtraError: textworld-express is not installed.
        """
        with self._lock:
            self._idle = [simulator for simulator in self._idle if simulator.alive]
            fitting = [simulator for simulator in self._idle if simulator.suits(setting.game)]
            fitting.sort(key=lambda simulator: simulator.loaded == _loading(setting))
            if fitting:
                self._idle.remove(fitting[-1])
                self._lent += 1
                return fitting[-1]
        made = Simulator(setting.game in ENTANGLED)
        with self._lock:
            self._lent += 1
        return made

    def give_back(self, simulator: Simulator) -> None:
        """Let others use a simulator that was borrowed."""
        with self._lock:
            self._lent -= 1
            self._idle.append(simulator)
            idle = not self._lent and self._loads
        if idle and simulator.alive:
            self._close_files(simulator.jvm)

    def loaded(self, jvm: Jvm) -> None:
        """Take note that a game was loaded."""
        with self._lock:
            self._loads += 1
            many = self._loads >= self.LOADS
        if many:
            self._close_files(jvm)

    def _close_files(self, jvm: Jvm) -> None:
        with self._lock:
            self._loads = 0
        with suppress(WorkerError):
            close_files(jvm)


_pool = Pool()
borrow, give_back = _pool.borrow, _pool.give_back


@lru_cache(1024)
def solution(setting: Setting) -> tuple[str, ...]:
    """The commands that solve a game from its start, found in a simulator of their own."""
    simulator = borrow(setting)
    try:
        simulator.begin(setting, solved=True)
        return simulator.solution()
    finally:
        give_back(simulator)


def _loading(setting: Setting) -> tuple[str, str]:
    return setting.game, ",".join(f"{name}={value}" for name, value in setting.params)
