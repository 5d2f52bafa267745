"""Replay: play recorded episodes again, and see whether they go the same way.

The record of an episode has its task (environment, name, seed, parameters), its actions, what came of them in plain
text, and a hash chain over that. A replay is compared with all of it, so that neither another environment nor a
record that was changed passes for identical. The first step that differs is shown as a diff.
"""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from palaestra.envs.core import Env, Step, SupportsVerify, Verdict
from palaestra.envs.deadline import Limits, Watch
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, DeadlineError, PalaestraError, UnknownNameError, WorkerError
from palaestra.trajectories.chain import next_link, start_link
from palaestra.trajectories.record import StepRecord, Trajectory

Result = Literal["identical", "different", "impossible"]

EnvMaker = Callable[[str], Env[Any, Any]]
"""Makes an environment from its id."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What playing one episode again showed."""

    id: str
    """Of the trajectory."""
    env: str
    task: str
    result: Result
    """`impossible`: the record or this machine lacks what is needed."""
    steps: int
    """Steps that were the same."""
    step: int | None = None
    """The first that differs, counted from 1; 0 for the first observation."""
    reason: str = ""
    """Why it is impossible, or what differs, in one line."""
    diff: str = ""
    """Unified diff of what was recorded and what came now, of the step that differs."""


class Turn(msgspec.Struct, frozen=True):
    """What an environment made of one action."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    invalid: bool

    def lines(self) -> list[str]:
        """For a diff."""
        facts = [f"{name}: {getattr(self, name)}" for name in ("reward", "terminated", "truncated")]
        facts += ["invalid: True"] if self.invalid else []
        return [*self.observation.splitlines(), *facts]


async def replay_all(
    trajectories: Iterable[Trajectory],
    *,
    make_env: EnvMaker = make,
    concurrency: int = 16,
    seconds: float = 120.0,
) -> AsyncIterator[Replay]:
    """Replay many, some at a time, and give each result as soon as it is there, in the order of completion.

    Args:
        trajectories: taken one by one, so that a large file is never in memory as a whole.
        make_env: makes a fresh environment for each.
        concurrency: how many at a time.
        seconds: most of one call of an environment.
    """
    queue = iter(trajectories)
    running: set[asyncio.Task[Replay]] = set()
    try:
        while True:
            while len(running) < concurrency and (trajectory := next(queue, None)) is not None:
                running.add(asyncio.create_task(replay(trajectory, make_env=make_env, seconds=seconds)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def replay(trajectory: Trajectory, *, make_env: EnvMaker = make, seconds: float = 120.0) -> Replay:
    """Play one episode again; what goes wrong is in the result, never raised.

    Args:
        trajectory: an episode, whole or cut off: its steps are what is compared.
        make_env: makes a fresh environment.
        seconds: most of one call of it.
    """
    return await _Replay(trajectory, make_env, seconds).run()


class _Differs(Exception):
    """The replay has parted from the record."""

    def __init__(self, step: int, reason: str, before: Sequence[str], now: Sequence[str]) -> None:
        super().__init__(reason)
        self.step, self.reason = step, reason
        title = f"step {step}" if step else "reset"
        lines = difflib.unified_diff(before, now, f"{title}, recorded", f"{title}, replayed", lineterm="")
        self.diff = "\n".join(lines)


class _Replay:
    """One episode on its way."""

    def __init__(self, record: Trajectory, make_env: EnvMaker, seconds: float) -> None:
        self.record, self.make_env, self.watch = record, make_env, Watch(Limits(call=seconds))
        self.same = 0
        self.total, self.success = 0.0, False
        """Of the replay so far, as the driver reckons them."""

    async def run(self) -> Replay:
        """Play it and say what came of it."""
        if not self.record.steps and not self.record.start_hash:
            return self._result("impossible", reason="the record holds nothing that could be compared")
        try:
            env = self.make_env(self.record.env)
        except UnknownNameError as error:
            return self._result("impossible", reason=f"{error}; import the module that registers it")
        except Exception as error:
            return self._result("impossible", reason=f"the environment cannot be made: {_one_line(error)}")
        try:
            await self._play(env)
        except _Differs as error:
            return self._result("different", step=error.step, reason=error.reason, diff=error.diff)
        except _Impossible as error:
            return self._result("impossible", reason=str(error))
        finally:
            await self._close(env)
        return self._result("identical")

    def _result(self, result: Result, *, step: int | None = None, reason: str = "", diff: str = "") -> Replay:
        record = self.record
        return Replay(
            id=record.id,
            env=record.env,
            task=record.task,
            result=result,
            steps=self.same,
            step=step,
            reason=reason,
            diff=diff,
        )

    async def _play(self, env: Env[Any, Any]) -> None:
        link = await self._start(env)
        for index, recorded in enumerate(self.record.steps):
            link = await self._step(env, index, recorded, link)
            self.same += 1
        for what, before, now in self._totals():
            if before != now:
                said = f"the record says {what} {before}, its steps {now}"
                raise _Differs(len(self.record.steps), said, [f"{what}: {before}"], [f"{what}: {now}"])

    def _totals(self) -> Iterator[tuple[str, object, object]]:
        """What the record says of the episode as a whole, beside what its steps make of it."""
        record = self.record
        ended = bool(record.steps) and (record.steps[-1].terminated or record.steps[-1].truncated)
        if record.status == "ok" or not record.error:  # what ended may still have failed to be graded
            yield "status", record.status, _status(record.status, ended)
        same = math.isclose(record.total_reward, self.total, rel_tol=1e-9, abs_tol=1e-9)
        yield "total_reward", record.total_reward, record.total_reward if same else self.total
        unsolved = record.status not in ("ok", "overflow") and not record.success  # as the driver sets it then
        yield "success", record.success, self.success and not unsolved

    async def _start(self, env: Env[Any, Any]) -> str:
        """Begin as the record did; returns the chain so far."""
        record = self.record
        seed = record.seed if record.task_seed is None else record.task_seed
        task = Task(
            env=record.env,
            name=record.task,
            split=record.split,
            seed=seed,
            params=record.params,
            kind=record.kind,
        )
        started = False
        try:
            await (env.start() if _placed(env) else self.watch("start", env.start()))  # a place has its own deadline
            started = True
            observation, info = await self.watch("reset", env.reset(seed=seed, task=task))
        except Exception as error:
            if started and _died(env, error):
                raise _Differs(0, f"reset: {_one_line(error)}", [], []) from error
            lacking = "" if record.params else " (the record has no parameters of its task)"
            raise _Impossible(f"the episode cannot be begun: {_one_line(error)}{lacking}") from error
        link = start_link(record.task, seed, str(observation))
        before = record.steps[0].observation if record.steps else record.final_observation
        if record.start_hash not in (link, "") and record.task_seed is None:
            raise _Impossible("the record does not have the task's seed; a version before this one wrote it")
        if str(observation) != before:
            raise _Differs(0, "another first observation", before.splitlines(), str(observation).splitlines())
        if record.start_hash not in (link, ""):
            raise _Differs(0, "another task, seed or first observation than the chain begins with", [], [])
        kind = str(info.get("task_type", ""))
        if kind and kind != record.kind:
            said = f"the record says kind {record.kind!r}, the environment {kind!r}"
            raise _Differs(0, said, [f"kind: {record.kind}"], [f"kind: {kind}"])
        return link

    async def _step(self, env: Env[Any, Any], index: int, recorded: StepRecord, link: str) -> str:
        """Take the step and compare it; returns the chain up to it."""
        number = index + 1
        before = _recorded(self.record, index)
        try:
            step = await self.watch("step", env.step(recorded.action))
            verdict = await self._verdict(env, index)
        except Exception as error:
            if isinstance(error, DeadlineError | WorkerError) and not _died(env, error):
                raise _Impossible(f"step {number} cannot be taken: {error}") from error
            said = f"raised {_one_line(error)}"
            raise _Differs(number, f"action {recorded.action!r} {said}", before.lines(), [said]) from error
        now = _seen(step)
        link = next_link(link, recorded.action, now.observation, now.reward, now.terminated, now.truncated)
        self._count(step, verdict)
        graded = now if verdict is None else msgspec.structs.replace(now, reward=now.reward + float(verdict.reward))
        shown = self._as_driven(graded, index, recorded)
        changed = [name for name in Turn.__struct_fields__ if getattr(before, name) != getattr(shown, name)]
        if not changed and recorded.state_hash in (link, ""):
            return link
        what = ", ".join(changed) or "hash, so the record does not agree with itself"
        raise _Differs(number, f"action {recorded.action!r}: another {what}", before.lines(), shown.lines())

    def _count(self, step: Step[Any], verdict: Verdict | None) -> None:
        self.total += float(step.reward)
        self.success = bool(step.info.get("success", self.total > 0))
        if verdict is not None:
            self.total += float(verdict.reward)
            self.success = bool(verdict.success)

    def _as_driven(self, now: Turn, index: int, recorded: StepRecord) -> Turn:
        """With what the driver sets: `truncated` at its own limit of turns, `invalid` where a text was no action."""
        last = index == len(self.record.steps) - 1
        cut_off = last and recorded.truncated and not now.terminated
        unread = recorded.invalid and recorded.completion >= 0
        return msgspec.structs.replace(now, truncated=now.truncated or cut_off, invalid=now.invalid or unread)

    async def _verdict(self, env: Env[Any, Any], index: int) -> Verdict | None:
        """What grading says behind the last step, where the episode ran to its end and was graded."""
        whole = index == len(self.record.steps) - 1 and self.record.status == "ok"
        if not whole or not isinstance(env, SupportsVerify):
            return None
        return await self.watch("verify", env.verify())

    async def _close(self, env: Env[Any, Any]) -> None:
        with suppress(Exception):  # the episode is compared; what it leaves behind is the checker's affair
            await self.watch("close", env.close())


class _Impossible(Exception):
    """The record or the machine lacks what a replay needs."""


def _recorded(record: Trajectory, index: int) -> Turn:
    """What came of step `index`, as the record has it."""
    step = record.steps[index]
    following = record.steps[index + 1].observation if index + 1 < len(record.steps) else record.final_observation
    return Turn(following, step.reward, step.terminated, step.truncated, step.invalid)


def _seen(step: Step[Any]) -> Turn:
    flags = bool(step.terminated), bool(step.truncated), bool(step.info.get("invalid", False))
    return Turn(str(step.observation), float(step.reward), *flags)


def _status(recorded: str, ended: bool) -> str:
    """`ok` exactly where the steps run to an end."""
    if ended:
        return "ok"
    return "cut off" if recorded == "ok" else recorded


def _placed(env: Env[Any, Any]) -> bool:
    """Whether it runs outside this process, thread or event loop, with deadlines of its own."""
    return env.spec is not None and env.spec.placement.kind != "inline"


def _died(env: Env[Any, Any], error: Exception) -> bool:
    """Whether the environment ended its own process, which is a way to go; a connection that breaks is none."""
    return isinstance(error, WorkerError) and env.spec is not None and env.spec.placement.kind != "remote"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PalaestraError) and text else f"{type(error).__name__}: {text}"


def stores_of(run: Path) -> list[Path]:
    """The trajectory files of a run directory, that of training first; a file itself is its only one.

    Raises:
        DataError: there are none.
    """
    if run.is_file():
        return [run]
    found = sorted(run.glob("trajectories/*.ptj"), key=lambda path: (not path.stem.startswith("train"), path.stem))
    if not found:
        raise DataError(f"{run}: no trajectories; give a run directory (with trajectories/*.ptj) or a .ptj file")
    return found
