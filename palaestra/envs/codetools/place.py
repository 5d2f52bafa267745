"""Where an interpreter lives: a sandbox, or, for who has nothing to lose, this machine."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from palaestra.envs.codetools.limits import VARIABLES, CodeLimits
from palaestra.errors import SandboxError
from palaestra.sandboxes.commands import Chunk, Exec, ExecResult, Output
from palaestra.sandboxes.core import OnOutput


class Place(Protocol):
    """What an interpreter needs of a sandbox; every `Sandbox` is one."""

    async def exec(self, command: Exec, on_output: OnOutput | None = None) -> ExecResult:
        """See `Sandbox.exec`."""

    async def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """See `Sandbox.write_file`."""

    async def close(self) -> None:
        """See `Sandbox.close`."""


class Unconfined:
    """A folder and limits on each process, and nothing else: what runs there can do all that its user can."""

    def __init__(self, limits: CodeLimits) -> None:
        self.limits = limits
        self.folder = Path(tempfile.mkdtemp(prefix="palaestra-code-"))
        self._running: set[subprocess.Popen[bytes]] = set()

    async def exec(self, command: Exec, on_output: OnOutput | None = None) -> ExecResult:
        """Run a program as `Sandbox.exec` does, both of its streams as one; no shell, no cap on output."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        began = time.monotonic()
        try:
            process = self._started(command, writing)
        except OSError as error:
            os.close(reading)
            raise SandboxError(f"cannot start {command.argv[0]}: {error.strerror}") from error
        finally:
            os.close(writing)
        tail = bytearray()
        try:
            async with asyncio.timeout(command.timeout):
                await _read(reading, tail, on_output)
                code = await _ended(process)
        except TimeoutError:
            code = -signal.SIGKILL
        finally:
            os.close(reading)
            self._end(process)
        seconds = time.monotonic() - began
        if code < 0:
            return ExecResult(128 - code, "signal", Output(bytes(tail)), Output(), seconds)
        return ExecResult(code, "exit", Output(bytes(tail)), Output(), seconds)

    async def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Put a file into the folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    async def close(self) -> None:
        """End what still runs, and delete the folder."""
        for process in list(self._running):
            self._end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _started(self, command: Exec, output: int) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as given:
            given.write(command.stdin)
            given.seek(0)
            process = subprocess.Popen(
                command.argv,
                stdin=given,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self._environ(command.env),
                start_new_session=True,
            )
        self._running.add(process)
        most = self.limits.disk
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        return process

    def _environ(self, more: Mapping[str, str]) -> dict[str, str]:
        place = {"PATH": os.defpath, "HOME": str(self.folder), "TMPDIR": str(self.folder), "LANG": "C.UTF-8"}
        return {**place, **VARIABLES, **more}

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._running.discard(process)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def _read(reading: int, tail: bytearray, on_output: OnOutput | None) -> None:
    """Hand on what is written until nobody can write any more; keeps the last of it."""
    os.set_blocking(reading, False)
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(reading, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                data = os.read(reading, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                return
            tail += data
            del tail[:-4096]
            if on_output is not None and (waits := on_output(Chunk("stdout", data))) is not None:
                await waits
    finally:
        loop.remove_reader(reading)


async def _ended(process: subprocess.Popen[bytes]) -> int:
    pause = 0.0005
    while (code := process.poll()) is None:
        await asyncio.sleep(pause)
        pause = min(0.05, 2 * pause)
    return code
