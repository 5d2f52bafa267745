"""A test environment whose behaviour is injected by functions, and what tests of rollouts share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.tasks import Task
from palaestra.trajectories.record import Trajectory

COMMANDS = ["look", "go to desk 1", "go to desk 10", "take key 2"]

ResetFunction = Callable[["InjectedEnv"], Awaitable[Reset[Any]]]
StepFunction = Callable[["InjectedEnv", str], Awaitable[Step[Any]]]


async def plain_reset(env: InjectedEnv) -> Reset[Any]:
    return Reset(f"You see desk {env.seed}. Your task is to: wait.", env.info())


async def plain_step(env: InjectedEnv, action: str) -> Step[Any]:
    """Solved by the fifth action."""
    done = env.steps >= 5
    return Step(f"{env.steps}: you did {action}.", float(done), done, False, env.info(success=done))


async def hang(env: InjectedEnv, *_: Any) -> Any:
    await asyncio.Event().wait()


class InjectedEnv(Env[Any, str]):
    """`on_reset`, `on_step` and `on_close` say what happens; `log` keeps all instances that share it."""

    def __init__(
        self,
        on_reset: ResetFunction = plain_reset,
        on_step: StepFunction = plain_step,
        on_close: Callable[[InjectedEnv], Awaitable[None]] | None = None,
        log: list[InjectedEnv] | None = None,
    ) -> None:
        self.on_reset, self.on_step, self.on_close = on_reset, on_step, on_close
        self.seed, self.steps, self.actions, self.closed = -1, 0, list[str](), 0
        self.task: Task | None = None
        self.number = len(log) if log is not None else 0
        if log is not None:
            log.append(self)

    def info(self, **more: Any) -> Info:
        return {"admissible_commands": list(COMMANDS), "task_type": f"kind {self.seed % 2}", **more}

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[Any]:
        self.seed, self.task = seed if seed is not None else 0, task
        return await self.on_reset(self)

    async def step(self, action: str) -> Step[Any]:
        self.steps += 1
        self.actions.append(action)
        return await self.on_step(self, action)

    async def oracle(self) -> str:
        return COMMANDS[self.steps % len(COMMANDS)]

    async def close(self) -> None:
        self.closed += 1
        if self.on_close:
            await self.on_close(self)


def tasks(n: int) -> list[Task]:
    return [Task(env="test/Injected-v0", name=f"task-{i}", seed=i) for i in range(n)]


def timeless(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories without their wall-clock times, which are all that may differ between two runs."""
    for trajectory in trajectories:
        for step in trajectory.steps:
            step.generate_seconds = step.env_seconds = 0.0
    return list(trajectories)
