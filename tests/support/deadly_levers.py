"""The levers in worker processes that die or hang now and then; workers import this module, so it imports little."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.tasks import Task

LEVERS = ["take key 2", "go to desk 1", "go to desk 10", "look"]
CHANCE = random.Random(os.getpid())


class DeadlyLevers(Env[str, str]):
    """As `support.levers.Levers`, but the first step of all ends its process, and the next one hangs; later, one in
    fifteen does the one, and one in thirty the other. `$LEVERS_DEATHS` lists them."""

    def __init__(self) -> None:
        self.turn, self.right = 0, 0

    def info(self) -> Info:
        return {"admissible_commands": LEVERS, "success": self.right == 2}

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.turn = self.right = 0
        return Reset(f"You see desk {seed}.", self.info())

    async def step(self, action: str) -> Step[str]:
        fate, known = CHANCE.random(), noted()
        if fate < 1 / 15 or "died" not in known:
            note("died")
            os.kill(os.getpid(), signal.SIGKILL)
        if fate > 29 / 30 or "hung" not in known:
            note("hung")
            time.sleep(1000)
        self.turn += 1
        self.right += action == LEVERS[0]
        return Step(f"you did {action}.", 0.5 * (action == LEVERS[0]), self.turn == 2, False, self.info())


def noted() -> list[str]:
    """The list."""
    file = Path(os.environ["LEVERS_DEATHS"])
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def note(what: str) -> None:
    """Add a line to the list."""
    with open(os.environ["LEVERS_DEATHS"], "a", encoding="utf-8") as file:
        file.write(what + "\n")
