"""Environments under test that run elsewhere: workers import them by name, so they live in a module of their own."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

from palaestra.envs.core import Env, Reset, Step, Verdict
from palaestra.envs.hashing import chain
from palaestra.envs.registry import EnvSpec
from palaestra.envs.tasks import Task

COMMANDS = ["look", "take key", "open door"]


class Ledger(Env[str, str]):
    """Whatever was done, and every draw, shows in all that follows; the `length`th step ends the episode."""

    def __init__(self, length: int = 1000, wait: float | None = None) -> None:
        self.length, self.wait = length, wait
        self.state, self.steps = "", 0
        self.generator = random.Random(0)

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.generator, self.steps = random.Random(seed), 0
        self.state = chain("", seed, task and [task.name, task.params], dict(options or {}))
        return Reset(f"begin {self.state}", self._info())

    async def step(self, action: str) -> Step[str]:
        if self.wait is not None:
            await asyncio.sleep(self.wait)
        self.steps += 1
        self.state = chain(self.state, action, self.generator.random())
        done = self.steps >= self.length
        return Step(f"{self.steps}: {self.state}", self.generator.random(), done, False, self._info(success=done))

    def _info(self, **more: Any) -> dict[str, Any]:
        return {"admissible_commands": list(COMMANDS), "task_type": "ledger", **more}


class Able(Ledger):
    """With every capability but snapshots."""

    async def oracle(self) -> str:
        return f"do {self.steps}"

    async def verify(self) -> Verdict:
        return Verdict(0.5, self.steps > 1, {"steps": self.steps})

    async def render(self) -> str:
        return f"<{self.steps}>"

    def tools(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}]


class GlobalDice(Env[str, str]):
    """Draws from the process-global generator, as foreign environments do."""

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        random.seed(seed)
        return Reset(f"{random.random()}", {})

    async def step(self, action: str) -> Step[str]:
        return Step(f"{action} {random.random()}", 0.0, False, False, {})


class Mark(Env[str, str]):
    """Changes its process, and says what it finds there."""

    def __init__(self, mark: str, folder: str) -> None:
        self.mark, self.folder = mark, folder

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        if self.mark:
            os.environ["PALAESTRA_TEST_MARK"] = self.mark
            os.chdir(self.folder)
        return Reset("hello", {"pid": os.getpid()})

    async def step(self, action: str) -> Step[str]:
        found = f"{os.environ.get('PALAESTRA_TEST_MARK', '-')} in {os.getcwd()}"
        return Step(found, 0.0, False, False, {})


class Holding(Ledger):
    """Holds something, from `reset` to `close`, that a copy of its process would not have or would share."""

    def __init__(self, what: str, file: str = "") -> None:
        super().__init__()
        self.what, self.file, self.held = what, file, list[Any]()

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.held = [self._hold()]
        return await super().reset(seed=seed, task=task, options=options)

    def _hold(self) -> Any:
        if self.what == "socket":
            return socket.socketpair()
        if self.what == "pipe":
            return [os.fdopen(number) for number in os.pipe()]
        if self.what == "writer":
            return tempfile.TemporaryFile()
        if self.what == "reader":
            return open(self.file)
        if self.what == "thread":
            self.stop = threading.Event()
            thread = threading.Thread(target=self.stop.wait, name="one")
            thread.start()
            return thread
        if self.what == "child":
            return subprocess.Popen(["sleep", "60"])
        if self.what == "task":
            return asyncio.create_task(asyncio.sleep(60))
        if self.what == "timer":
            return asyncio.get_running_loop().call_later(60, print)
        if self.what == "alarm":
            return signal.setitimer(signal.ITIMER_REAL, 60)
        if self.what == "signal":
            return asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
        if self.what == "full":
            self.own_fork, os.fork = os.fork, _no_room
            return None
        return mmap.mmap(-1, 4096)

    async def step(self, action: str) -> Step[str]:
        step = await super().step(action)
        if self.what == "reader":
            step.info["line"] = self.held[0].readline().strip()
        return step

    async def close(self) -> None:
        for held in self.held:
            if self.what == "thread":
                self.stop.set()
            elif self.what == "child":
                held.kill()
                held.wait()
            elif self.what in ("task", "timer"):
                held.cancel()
            elif self.what == "alarm":
                signal.setitimer(signal.ITIMER_REAL, 0)
            elif self.what == "signal":
                asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
            elif self.what == "full":
                os.fork = self.own_fork


def _no_room() -> int:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class Waiting(Ledger):
    """Waits in the event loop, which it knows, and for a lock, which belongs to that loop; says how deep it may go."""

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.loop, self.lock = asyncio.get_running_loop(), asyncio.Lock()
        return await super().reset(seed=seed, task=task, options=options)

    async def step(self, action: str) -> Step[str]:
        await asyncio.gather(self._turn(), self._turn())  # the second one waits, so that the lock is bound
        step = await super().step(action)
        step.info["loop"] = self.loop is asyncio.get_running_loop()
        step.info["depth"] = _depth_left()
        step.info["files"] = len(os.listdir("/proc/self/fd"))
        return step

    async def _turn(self) -> None:
        async with self.lock:
            await asyncio.sleep(0.001)


def _depth_left(depth: int = 0) -> int:
    try:
        return _depth_left(depth + 1)
    except RecursionError:
        return depth


class Bad(Env[Any, str]):
    """Misbehaves as `how` says, in the method that `when` names; else it is well-behaved."""

    def __init__(self, how: str, when: str = "step", seconds: float = 600.0) -> None:
        self.how, self.when, self.seconds = how, when, seconds
        self.hoard: list[Any] = []
        self._at("create")

    def _at(self, phase: str) -> Any:
        return getattr(self, f"_{self.how}")() if phase == self.when else None

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[Any]:
        found = self._at("reset")
        return found if found is not None else Reset("hello", {"pid": os.getpid()})  # type: ignore[no-any-return]

    async def step(self, action: str) -> Step[Any]:
        if self.when == "step" and self.how in ("hang", "deaf"):
            await getattr(self, f"_{self.how}_on")()
        found = self._at("step")
        return found if found is not None else Step("well", 0.0, False, False, {})  # type: ignore[no-any-return]

    async def close(self) -> None:
        self._at("close")

    def _nothing(self) -> None:
        pass

    def _raise(self) -> None:
        raise ValueError("the door is\nstuck")

    def _wrong_type(self) -> Any:
        return "no tuple"

    def _wrong_info(self) -> Any:
        return Step("well", 0.0, False, False, ["no dict"])  # type: ignore[arg-type]

    def _wrong_reward(self) -> Any:
        return Step("well", "much", False, False, {})  # type: ignore[arg-type]

    def _wrong_key(self) -> Any:
        return Step("well", 0.0, False, False, {1: "one"})  # type: ignore[dict-item]

    def _no_number(self) -> Any:
        return Step("well", float("nan"), False, False, {})

    def _endless_reward(self) -> Any:
        return Step("well", float("-inf"), False, False, {})

    def _unserialisable(self) -> Any:
        return Step("well", 0.0, False, False, {"self": self})

    def _endless(self) -> Any:
        deep: list[Any] = []
        deep.append(deep)
        return Step("well", 0.0, False, False, {"deep": deep})

    def _huge(self) -> Any:
        return Step("x" * (65 * 2**20), 0.0, False, False, {})

    def _print(self) -> None:
        print("noise " * 100_000)
        os.write(1, b"raw noise\n" * 1000)
        sys.stdout.flush()

    def _fork(self) -> Any:
        """A child that would outlive its parent, in a session of its own."""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(self.seconds)
            os._exit(0)
        return Step("forked", 0.0, False, False, {"child": pid})

    def _subprocess(self) -> Any:
        child = subprocess.Popen(["sleep", str(self.seconds)], start_new_session=True)
        self.hoard.append(child)
        return Step("started", 0.0, False, False, {"child": child.pid})

    def _daemon(self) -> Any:
        """A process whose parent is gone, in a session of its own."""
        code = "import subprocess, sys; print(subprocess.Popen(['sleep', sys.argv[1]], start_new_session=True, "
        code += "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
        done = subprocess.run([sys.executable, "-c", code, str(self.seconds)], capture_output=True, check=True)
        return Step("started", 0.0, False, False, {"child": int(done.stdout)})

    def _orphan_exit(self) -> None:
        """Starts a process and dies without a word."""
        self._subprocess()
        os._exit(3)

    def _allocate(self) -> None:
        for _ in range(4000):  # bounded, should nobody stop it
            self.hoard.append(b"x" * 2**20)
            time.sleep(0.001)

    def _busy(self) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            pass

    def _late(self) -> None:
        time.sleep(self.seconds)

    async def _hang_on(self) -> None:
        await asyncio.Event().wait()

    async def _deaf_on(self) -> None:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    def _hang(self) -> None:
        time.sleep(self.seconds)

    _deaf = _hang

    def _os_exit(self) -> None:
        os._exit(0)

    def _sys_exit(self) -> None:
        sys.exit(0)

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

    def _base(self) -> None:
        raise BaseException("bare")

    def _cancelled(self) -> None:
        raise asyncio.CancelledError

    def _segfault(self) -> None:
        ctypes.string_at(0)

    def _speak(self) -> None:
        for number in range(3, 20):
            with suppress(OSError):
                os.write(number, b"\x03\x00\x00\x00abc")

    def _close_files(self) -> None:
        os.closerange(3, 1000)


def spec(maker: type[Env[Any, Any]], **kwargs: Any) -> EnvSpec:
    """Of one of the classes above; `placement` and `kwargs` by name."""
    placement = {"placement": kwargs.pop("placement")} if "placement" in kwargs else {}
    entry_point = f"{__name__}:{maker.__name__}"
    return EnvSpec(id=f"test/{maker.__name__}-v0", entry_point=entry_point, kwargs=kwargs, **placement)
