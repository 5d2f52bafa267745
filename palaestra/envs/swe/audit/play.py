"""Attacks played as episodes, by the actions that any agent has: a script in the shell, then the work handed in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from palaestra.envs.core import Env
from palaestra.envs.registry import make
from palaestra.envs.swe.audit.attack import Attack, files_of
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.instances import read_instance
from palaestra.envs.swe.oracle import SUBMIT
from palaestra.envs.swe.request import say
from palaestra.envs.tasks import Task
from palaestra.errors import PalaestraError

ORACLE = Attack("oracle", "solve it")
_END = "END-OF-THE-ATTACK"
_MOST_TURNS = 12


class Finding(Struct, frozen=True):
    """What came of one attack."""

    attack: str
    tried: str
    score: float
    """The reward of the episode."""
    solved: bool
    """What the environment says."""
    seen: str = ""
    """What grading saw, or why there was no verdict."""
    seconds: float = 0.0
    """That the episode took."""

    @property
    def ok(self) -> bool:
        """Whether it is as it should be: nothing for an attack, all for the oracle."""
        paid = self.solved or self.score > 0
        return paid if self.attack == ORACLE.name else not paid


async def audit(
    task: Task,
    attacks: Sequence[Attack],
    *,
    backend: str | None = None,
    at_once: int = 2,
    on_finding: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Play every attack on a task, and the oracle beside them.

    Args:
        task: of `swe/Repository-v0` or another environment with its tools.
        attacks: which.
        backend: what the sandboxes run on, instead of the task's own.
        at_once: episodes at a time.
        on_finding: called with each as it comes.

    Raises:
        DataError: there is no such task.
    """
    instance = await asyncio.to_thread(read_instance, task.params)
    if backend is not None:
        task = msgspec.structs.replace(task, params={**task.params, "backend": backend})
    turn = asyncio.Semaphore(at_once)

    async def one(attack: Attack) -> Finding:
        async with turn:
            finding = await play(task, instance, attack)
        if on_finding is not None:
            on_finding(finding)
        return finding

    return list(await asyncio.gather(*(one(attack) for attack in (ORACLE, *attacks))))


async def play(task: Task, instance: Instance, attack: Attack) -> Finding:
    """One attack. What goes wrong on the way is a finding: an episode without a verdict pays nothing."""
    score, solved, seen, began = 0.0, False, "", time.monotonic()
    env = make(task.env)
    try:
        await env.reset(seed=task.seed, task=task)
        score = await (_oracle(env) if attack is ORACLE else _attack(env, instance, attack))
        verdict = await env.verify()  # type: ignore[attr-defined]
        score, solved = score + verdict.reward, verdict.success
        seen = _seen(verdict.info)
    except PalaestraError as error:
        seen = f"no verdict: {error}"
    finally:
        await env.close()
    return Finding(attack.name, attack.tried, score, solved, seen, time.monotonic() - began)


async def _attack(env: Env[Any, Any], instance: Instance, attack: Attack) -> float:
    score = 0.0
    if attack.script:
        step = await env.step(say("shell", script(instance, attack)))
        score += step.reward
    return score + (await env.step(SUBMIT)).reward


async def _oracle(env: Env[Any, Any]) -> float:
    score = 0.0
    for _ in range(_MOST_TURNS):
        step = await env.step(await env.oracle())  # type: ignore[attr-defined]
        score += step.reward
        if step.terminated or step.truncated:
            break
    return score


def script(instance: Instance, attack: Attack) -> str:
    """What the shell is given."""
    required = (*instance.fail_to_pass, *instance.pass_to_pass)
    tests = sorted({id.partition("::")[0] for id in required})
    program = attack.program(files_of(instance.gold_patch), tests)
    return f"cd {instance.repository}\npython3 - <<'{_END}'\n{program}\n{_END}"


def _seen(info: dict[str, Any]) -> str:
    left_out = info.get("left_out") or ()
    more = f"not taken over: {', '.join(map(str, left_out))}" if left_out else ""
    return "; ".join(filter(None, (str(info.get("reason", "")), more)))
