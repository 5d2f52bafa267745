"""Whether tasks are worth playing: the known solution solves them, and doing nothing does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from palaestra.envs.checks.experts import ORACLE_STEPS
from palaestra.envs.core import Env, Info, SupportsOracle, SupportsVerify, Verdict
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import DeadlineError, EnvError, PalaestraError

EnvMaker = Callable[[str], Env[Any, Any]]


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about one task."""

    task: str
    kind: str = ""
    noop: float | None = None
    """Reward for doing nothing, where the environment grades final states; `None` where it does not."""
    oracle: float | None = None
    """Reward of the oracle; `None` where there is none."""
    steps: int = 0
    """Actions of the oracle."""
    seconds: float = 0.0
    """That both took."""
    wrong: str = ""
    """Why the task should not be played; empty where nothing speaks against it."""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.wrong


async def validate_all(
    tasks: Sequence[Task],
    on_done: Callable[[Validation], None] = lambda found: None,
    *,
    make_env: EnvMaker = make,
    seconds: float = 600.0,
    at_once: int = 1,
) -> list[Validation]:
    """What is found out about each of the tasks, in their order.

    Args:
        tasks: which.
        on_done: called with each as soon as it is done.
        make_env: makes their environments.
        seconds: that one task may take.
        at_once: tasks that are looked at at the same time.
    """
    places = asyncio.Semaphore(at_once)

    async def one(task: Task) -> Validation:
        async with places:
            found = await validate(task, make_env=make_env, seconds=seconds)
        on_done(found)
        return found

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(task)) for task in tasks]
    return [each.result() for each in running]


async def validate(task: Task, *, make_env: EnvMaker = make, seconds: float = 600.0) -> Validation:
    """Do nothing in a task, then have the oracle play it. Whatever goes wrong is in the result."""
    began = time.monotonic()
    found = Validation(task=task.name, kind=task.kind)
    try:
        env = make_env(task.env)
        try:
            async with asyncio.timeout(seconds):
                found = await _played(found, task, env)
        finally:
            await env.close()
    except TimeoutError:
        found = msgspec.structs.replace(found, wrong=str(DeadlineError(f"it took longer than {seconds:g} s")))
    except Exception as error:
        told = " ".join(str(error).split())
        wrong = told if isinstance(error, PalaestraError) else f"{type(error).__name__}: {told}"
        found = msgspec.structs.replace(found, wrong=wrong)
    return msgspec.structs.replace(found, seconds=time.monotonic() - began)


async def _played(found: Validation, task: Task, env: Env[Any, Any]) -> Validation:
    await env.start()
    wrong: list[str] = []
    first = await env.reset(seed=task.seed, task=task)
    kind = found.kind or str(first.info.get("task_type", ""))
    noop = None
    if isinstance(env, SupportsVerify):
        verdict = await env.verify()
        noop = verdict.reward
        if verdict.success or verdict.reward > 0:
            wrong.append(f"doing nothing is paid {verdict.reward:g}")
        first = await env.reset(seed=task.seed, task=task)
    found = msgspec.structs.replace(found, kind=kind, noop=noop)
    try:
        reward, steps, problem = await _solved(env, first.info)
    except _NoOracle:
        reward, steps, problem = None, 0, ""
    wrong += [problem] if problem else []
    return msgspec.structs.replace(found, oracle=reward, steps=steps, wrong="; ".join(wrong))


class _NoOracle(Exception):
    """The environment has none, or none for this task."""


async def _solved(env: Env[Any, Any], info: Info) -> tuple[float | None, int, str]:
    """The oracle's reward, its steps, and why that is no solution."""
    if not isinstance(env, SupportsOracle):
        raise _NoOracle
    total, steps, over = 0.0, 0, False
    while not over and steps < ORACLE_STEPS:
        try:
            action = await env.oracle()
        except EnvError as error:
            if steps == 0:
                raise _NoOracle from error
            raise
        step = await env.step(action)
        total, steps, over, info = total + float(step.reward), steps + 1, step.terminated or step.truncated, step.info
    verdict = Verdict(0.0, bool(info.get("success", total > 0)), {})
    if isinstance(env, SupportsVerify):
        verdict = await env.verify()
        total += verdict.reward
    if verdict.success:
        return total, steps, ""
    why = f": {reason}" if (reason := verdict.info.get("reason")) else ""
    return total, steps, f"the oracle does not solve it in {steps} steps{why}"
