"""An environment that runs elsewhere, as one that runs here."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from palaestra.envs.core import Env, Reset, Step, Verdict
from palaestra.envs.fork import close_all, replay_into
from palaestra.envs.history import History, fresh_seed
from palaestra.envs.isolation.channel import CannotFork, Channel, open_channel
from palaestra.envs.isolation.protocol import (
    Ask,
    Call,
    Failed,
    Made,
    Make,
    ResetCall,
    ResetDone,
    Result,
    StepCall,
    StepDone,
    Value,
)
from palaestra.envs.isolation.queueing import places
from palaestra.envs.places import Places
from palaestra.envs.registry import EnvSpec
from palaestra.envs.tasks import Task
from palaestra.errors import DeadlineError, EnvError, WorkerError

T = TypeVar("T")


class IsolatedEnv(Env[Any, Any]):
    """The near side: every call goes through a channel, within a deadline.

    A call that does not come back in time, is cancelled, or finds the far side gone, ends the far side; the
    environment can then only be closed, or begin again by `reset`.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec
        self.history: History | None = None
        """The episode so far; `None` before `reset`."""
        self._limits = spec.placement.deadlines
        self._channel: Channel | None = None
        self._place: Places | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tool_list: Sequence[Mapping[str, Any]] = ()
        self._busy = False
        self._over = True

    async def start(self) -> None:
        """Wait for a place, start the far side and make the environment there.

        Raises:
            DeadlineError: no place was free, or it was not ready, in time.
            WorkerError: the far side ended.
            EnvError: the environment could not be made.
        """
        if self._strange:
            self._end()  # nobody waits for what that loop would say
        if self._channel is not None:
            return
        self._loop = asyncio.get_running_loop()
        if self._place is None and (place := places(self._spec)) is not None:
            await self._within("queue", place.take())
            self._place = place
        try:
            self._channel = await self._open()
            made = await self._call("create", Make(self._spec), Made)
        except BaseException:
            self._end()
            raise
        for name in made.capabilities:
            self.__dict__[name] = getattr(self, f"_{name}")

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[Any]:
        """Begin an episode; see `Env.reset`."""
        await self.start()
        seed = fresh_seed(task) if seed is None else seed
        options = dict(options) if options is not None else None
        done = await self._call("reset", ResetCall(seed=seed, task=task, options=options), ResetDone)
        first = Reset(done.observation, done.info)
        self._tool_list = done.tools or ()
        self.history, self._over = History(seed, task, options, first), False
        return first

    async def step(self, action: Any) -> Step[Any]:
        """Take one action; see `Env.step`."""
        if self.history is None or self._over:
            when = "before reset" if self.history is None else "after the end of the episode"
            raise EnvError(f"step was called {when}; call reset first")
        done = await self._call("step", StepCall(action), StepDone)
        step = Step(done.observation, done.reward, done.terminated, done.truncated, done.info)
        self.history.turns.append((action, step))
        self._over = step.terminated or step.truncated
        return step

    async def fork(self, n: int = 1) -> list[Env[Any, Any]]:
        """Copy the far side where that is right, else replay; see `Env.fork`."""
        if n < 0:
            raise EnvError(f"cannot fork {n} times")
        self._assert_native()
        if self.history is None or self._channel is None:
            raise EnvError("cannot fork: no episode has begun; call reset first")
        siblings: list[IsolatedEnv] = []
        try:
            await self._take_places(siblings, n)
            if self._channel is None:
                raise WorkerError("the environment was closed while it waited to be forked")
            channels = await self._within("fork", self._channel.fork(n))
        except CannotFork:
            return await replay_into([*siblings], self.history.copy())
        except BaseException:
            await close_all([*siblings])
            raise
        for sibling, channel in zip(siblings, channels, strict=True):
            self._copy_to(sibling, channel)
        return [*siblings]

    async def _take_places(self, siblings: list[IsolatedEnv], n: int) -> None:
        """Make `n` siblings with a place each, all taken at once: two forks that hold some would wait for ever."""
        if n and (place := places(self._spec)) is not None:
            await self._within("queue", place.take(n, more=True))
        else:
            place = None
        for _ in range(n):
            siblings.append(sibling := IsolatedEnv(self._spec))
            sibling._place, sibling._loop = place, self._loop

    def _copy_to(self, sibling: IsolatedEnv, channel: Channel) -> None:
        assert self.history is not None
        sibling._channel, sibling.history = channel, self.history.copy()
        sibling._tool_list, sibling._over = self._tool_list, self._over
        for name in ("oracle", "verify", "tools", "render"):
            if name in self.__dict__:
                sibling.__dict__[name] = getattr(sibling, f"_{name}")

    async def close(self) -> None:
        """Close the environment there and let the far side go. May be called more than once."""
        channel = self._channel
        if channel is None or self._busy or self._strange:  # what is busy is closed by somebody who gave up on it
            self._end()
            return
        try:
            await self._call("close", Ask("close"), Value)
            async with asyncio.timeout(self._limits.close):
                self._channel = None
                await channel.close()
        except (EnvError, TimeoutError):
            channel.kill()
        except BaseException:
            channel.kill()
            raise
        finally:
            self._end()

    async def _open(self) -> Channel:
        _assert_importable(self._spec)
        opening = open_channel(self._spec)
        if self._spec.placement.kind == "interpreter":
            return await opening  # building it may take minutes, once; it watches its own steps
        return await self._within("create", opening)

    async def _call(self, phase: str, call: Call, expected: type[T]) -> T:
        self._assert_native()
        if self._channel is None:
            raise WorkerError("where the environment ran is gone; call reset to begin again")
        if self._busy:
            raise EnvError("the environment is still busy with an earlier call; await it first")
        self._busy = True
        try:
            result: Result = await self._within(phase, self._channel.call(call))
        except EnvError as error:
            if not isinstance(error, DeadlineError | WorkerError):
                raise  # the message could not be sent, and the far side never knew
            self._end()
            raise
        except BaseException:
            self._end()
            raise
        finally:
            self._busy = False
        if isinstance(result, Failed):
            raise _rebuilt(result)
        if not isinstance(result, expected):
            self._end()
            raise WorkerError(f"the far side answered a {type(call).__name__} by a {type(result).__name__}")
        return result

    @property
    def _strange(self) -> bool:
        """Whether what is there belongs to another event loop than the running one."""
        return self._loop is not None and self._loop is not asyncio.get_running_loop()

    def _assert_native(self) -> None:
        if self._strange:
            self._end()
            raise WorkerError("the environment belongs to another event loop; call reset to begin again in this one")

    async def _within(self, phase: str, work: Awaitable[T]) -> T:
        """The result of `work`, within the deadline of `phase`.

        Raises:
            DeadlineError: it took longer, and was cancelled.
        """
        seconds: float | None = getattr(self._limits, phase)
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await work
        except TimeoutError:
            if deadline.expired():
                raise DeadlineError(
                    f"{self._spec.id}: {phase} took longer than {seconds:g} s{self._advice(phase)}"
                ) from None
            raise

    def _advice(self, phase: str) -> str:
        """What is to be known of a deadline here."""
        if self._spec.placement.kind != "thread" or phase == "queue":
            return ""
        return "; its thread cannot be ended and may run on: placement='process' can be killed"

    def _end(self) -> None:
        """Kill the far side, if it is there, and give the place back."""
        channel, self._channel = self._channel, None
        place, self._place = self._place, None
        loop, self._loop = self._loop, None
        self._over = True
        gone = (RuntimeError,) if loop is not None and loop.is_closed() else ()
        with suppress(*gone):  # what belongs to a closed loop cannot be told any more
            if channel is not None:
                channel.kill()
        with suppress(*gone):
            if place is not None:
                place.give_back()

    async def _oracle(self) -> Any:
        return (await self._call("step", Ask("oracle"), Value)).value

    async def _verify(self) -> Verdict:
        value = (await self._call("verify", Ask("verify"), Value)).value
        with suppress(msgspec.ValidationError):
            return msgspec.convert(value, Verdict)
        raise EnvError(f"verify returned {value!r}; return Verdict(reward, success, info)")

    async def _render(self) -> Any:
        return (await self._call("step", Ask("render"), Value)).value

    def _tools(self) -> Sequence[Mapping[str, Any]]:
        return self._tool_list

    @property
    def _spec(self) -> EnvSpec:
        assert self.spec is not None
        return self.spec

    def __repr__(self) -> str:
        return f"IsolatedEnv({self._spec.id}, {self._spec.placement.kind})"


def _assert_importable(spec: EnvSpec) -> None:
    """Refuse what was typed in, for a process that would have to import it."""
    if spec.placement.kind not in ("process", "interpreter") or not spec.entry_point.startswith("__main__:"):
        return
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is None or not os.path.isfile(file):
        raise EnvError(
            f"a worker process cannot import {spec.entry_point!r}, which is in no file; move the class to a module"
        )


def _rebuilt(failed: Failed) -> EnvError:
    """The error of the far side, as one of this side's."""
    if failed.error == "EnvError":
        return EnvError(failed.message)
    return EnvError(f"{failed.error}: {failed.message}" + (f" ({failed.where})" if failed.where else ""))
