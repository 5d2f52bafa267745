"""Checks in a process of their own, which the environment may crash, hang or fill without harm to this one."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import IO

import msgspec

from palaestra.envs.checks import CHECKS
from palaestra.envs.checks.report import Check, Report
from palaestra.envs.checks.resources import family
from palaestra.envs.checks.worker import LENGTH, Message, Request
from palaestra.envs.deadline import Limits
from palaestra.envs.isolation.channel import open_channel
from palaestra.envs.isolation.placement import Kind
from palaestra.envs.isolation.proc import kill, resident_bytes
from palaestra.envs.isolation.venvs import cached
from palaestra.envs.registry import EnvSpec

_GRACE = 15.0
"""Seconds beyond the deadline of a check that the worker has to say so itself."""
_POLL = 0.25

Progress = Callable[[str, Check | None], None]


def supervised(
    spec: EnvSpec,
    *,
    modules: Sequence[str] = (),
    episodes: int = 3,
    max_steps: int = 50,
    placement: Kind | None = None,
    limits: Limits = Limits(),
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """`check_env` in a fresh process.

    Args:
        spec: of the environment.
        modules: to be imported first there, because they register environments.
        episodes, max_steps, placement, limits, progress: see `check_env`.
        memory_bytes: most resident memory of the process and what it starts; half of the machine's by default.

    Returns:
        The report. A process that dies, hangs or takes too much memory fails the check that ran, and the checks behind
        it are skipped.
    """
    request = Request(
        spec=spec,
        path=sys.path,
        modules=list(modules),
        episodes=episodes,
        max_steps=max_steps,
        placement=placement,
        call_seconds=limits.call,
        check_seconds=limits.check,
    )
    where = placement or spec.placement.kind
    memory_bytes = memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    with tempfile.TemporaryFile() as said:
        worker = _Worker(request, said)
        try:
            return _Supervision(worker, limits.check + _GRACE, memory_bytes, progress).report(spec.id, where)
        finally:
            worker.end()


def unbuilt(spec: EnvSpec) -> bool:
    """Whether the environment needs an interpreter that nobody has built yet, which may take minutes."""
    placement = spec.placement
    if placement.kind != "interpreter" or (placement.python and not placement.requirements):
        return False
    recipes = [venv.recipe() for venv in cached() if venv.ready]
    return all(recipe is None or recipe.requirements != placement.requirements for recipe in recipes)


async def build_interpreter(spec: EnvSpec) -> None:
    """Build it, however long that takes: no deadline of a check counts it.

    Raises:
        EnvError: it cannot be built, or does not start.
    """
    channel = await open_channel(spec)
    await channel.close()


class _Worker:
    """The process and its pipe."""

    def __init__(self, request: Request, said: IO[bytes]) -> None:
        self.said = said
        self.pipe, far = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "palaestra.envs.checks.worker", str(far)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=(far,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self.pipe)
            raise
        finally:
            os.close(far)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(msgspec.json.encode(request))

    def ending(self) -> str:
        """How it ended, with the last line that it wrote to standard error."""
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return f"the process {how}" + (f": {lines[-1].strip()}" if lines and code else "")

    def memory(self) -> int:
        """Resident bytes of it and all that it has started."""
        return sum(map(resident_bytes, family(self.process.pid)))

    def end(self) -> None:
        """Kill what it has started; it then kills what is left, and ends."""
        for pid in family(self.process.pid)[1:]:
            kill(pid)
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.pipe)


class _Supervision:
    """Reads what the worker says until it reports or has to be given up."""

    def __init__(self, worker: _Worker, patience: float, memory_bytes: int, progress: Progress | None) -> None:
        self.worker, self.patience, self.memory_bytes, self.progress = worker, patience, memory_bytes, progress
        self.checks: list[Check] = []
        self.running = next(iter(CHECKS))
        self._unread = b""
        self._heard = time.monotonic()

    def report(self, env: str, placement: Kind) -> Report:
        """The worker's report, or the one that says how it failed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.worker.pipe, selectors.EVENT_READ)
            while True:
                if selector.select(_POLL):
                    chunk = os.read(self.worker.pipe, 1 << 16)
                    if not chunk:
                        return self._given_up(env, placement, self.worker.ending())
                    try:
                        report = self._read(chunk)
                    except msgspec.MsgspecError as error:
                        return self._given_up(env, placement, f"the process said what nobody understands: {error}")
                    if report:
                        return report
                if time.monotonic() - self._heard > self.patience:
                    return self._given_up(env, placement, f"no answer for {self.patience:g} s; it was killed")
                if (used := self.worker.memory()) > self.memory_bytes:
                    why = (
                        f"used {used / 1e9:.1f} GB of memory, more than {self.memory_bytes / 1e9:.1f} GB; it was killed"
                    )
                    return self._given_up(env, placement, why)

    def _read(self, chunk: bytes) -> Report | None:
        self._unread += chunk
        while (packed := self._taken()) is not None:
            message = msgspec.msgpack.decode(packed, type=Message)
            self._heard = time.monotonic()
            if message.report is not None:
                return message.report
            if message.done is not None:
                self.checks.append(message.done)
            else:
                self.running = message.begun
            if self.progress:
                self.progress(self.running, message.done)
        return None

    def _taken(self) -> bytes | None:
        """The next message, if it is here as a whole."""
        if len(self._unread) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._unread)[0]
        if len(self._unread) < end:
            return None
        packed, self._unread = self._unread[LENGTH.size : end], self._unread[end:]
        return packed

    def _given_up(self, env: str, placement: Kind, why: str) -> Report:
        done = {check.name for check in self.checks}
        if self.running in done:  # between two checks, or in the grading behind the last one
            self.running = next((name for name in CHECKS if name not in done), "same when repeated")
        failed = Check(self.running, "fail", why)
        rest = [Check(name, "skip", f"{failed.name} ended the checks") for name in CHECKS if name not in done]
        checks = [*self.checks, failed, *(check for check in rest if check.name != failed.name)]
        return Report(env=env, placement=placement, checks=tuple(checks), determinism=None)
