"""Environments that grade when the episode is over, with good and bad tasks."""

import asyncio
from collections.abc import Mapping
from typing import Any

from palaestra.envs.core import Env, Reset, Step, Verdict
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite
from palaestra.errors import EnvError

KINDS = ("good", "given", "unsolved", "unknown", "broken", "slow")


class Graded(Env[str, str]):
    """The word is to be said. `params["kind"]` says what is wrong with the task."""

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        assert task is not None
        self.kind, self.said = task.params["kind"], ""
        if self.kind == "broken":
            raise RuntimeError("there is no such file")
        return Reset("Say the word.", {"success": False})

    async def step(self, action: str) -> Step[str]:
        self.said = action
        return Step("Said.", 0.0, True, False, {"success": False})

    async def oracle(self) -> str:
        if self.kind == "unknown":
            raise EnvError("nobody knows the word")
        return "nothing" if self.kind == "unsolved" else "word"

    async def verify(self) -> Verdict:
        if self.kind == "slow":
            await asyncio.sleep(60)
        right = self.kind == "given" or self.said == "word"
        return Verdict(float(right), right, {"reason": "" if right else "it was another word"})


register("graded/Word-v0", "support.graded_envs:Graded")
register_suite(
    "graded",
    lambda split, level=None: TaskSuite(
        "graded",
        split,
        len(KINDS),
        lambda index: Task(env="graded/Word-v0", name=f"{KINDS[index]}-1", kind="word", params={"kind": KINDS[index]}),
    ),
)
