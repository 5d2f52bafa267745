"""The original `alfworld`, for comparisons: our environment of it in a process of its own, played without waiting."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.original import OriginalEnv
from palaestra.envs.core import Reset, Step
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import EnvSpec, make
from palaestra.envs.tasks import Task


def interpreter() -> str | None:
    """A Python that has `alfworld`: `PALAESTRA_ALFWORLD_PYTHON`, else this one, else None."""
    from importlib.util import find_spec

    return os.environ.get("PALAESTRA_ALFWORLD_PYTHON") or (sys.executable if find_spec("alfworld") else None)


def placement(python: str) -> Placement:
    """Where the original runs, given what `interpreter` found."""
    return Placement(kind="process") if python == sys.executable else Placement(kind="interpreter", python=python)


class Answer(NamedTuple):
    """What the original says."""

    text: str
    won: bool
    commands: list[str]
    seconds: float
    """CPU time inside `step`."""


class Endless(OriginalEnv):
    """Goes on when the task is done, and times its steps."""

    async def step(self, action: str) -> Step[str]:
        start = time.process_time()
        step = await super().step(action)
        step.info["seconds"] = time.process_time() - start
        return step._replace(terminated=False, truncated=False)


class Original:
    """Plays our games on the original; use as a context manager."""

    def __init__(self, python: str, fast_grammar: bool = False) -> None:
        """Start it; stock, or with `fast_grammar`, the same texts in less time."""
        spec = EnvSpec(
            id="test/Original-v0",
            entry_point=f"{__name__}:{Endless.__name__}",
            kwargs={"fast_grammar": fast_grammar},
            placement=placement(python),
        )
        self._runner = asyncio.Runner()
        self._env = make(spec)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self._env.close())

    def load(self, game: Game) -> Answer:
        """Begin `game`."""
        task = Task(env="test/Original-v0", name="game", params={"game": msgspec.to_builtins(game)})
        return _answer(self._runner.run(self._env.reset(task=task)))

    def step(self, command: str) -> Answer:
        """Do a command."""
        return _answer(self._runner.run(self._env.step(command)))


def _answer(turn: Reset[str] | Step[str]) -> Answer:
    info: dict[str, Any] = turn.info
    return Answer(turn.observation, info["success"], info["admissible_commands"], info.get("seconds", 0.0))
