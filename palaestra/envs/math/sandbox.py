"""Code of an agent's, run in a fresh interpreter: without a network, with little of everything, for a short while."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

from palaestra.envs.math.confinement import Kind, Limits, bubblewrap, environ, interpreter
from palaestra.errors import EnvError
from palaestra.sandboxes.seccomp import threads_only

_BEGUN = b"\x01"
_FLOOD = 1 << 20
"""Bytes of output after which the code is stopped."""
_ADDRESS = re.compile(r"(?<= at 0x)[0-9a-f]{6,16}\b")
"""In Python's description of an object; it differs from run to run."""
_MOST_AT_ONCE = max(2, os.cpu_count() or 2)
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Ran(NamedTuple):
    """What came of some code."""

    output: str
    """What it printed, on stdout and stderr, or why it was stopped: then what it printed is not shown, because how far
    it came differs from run to run."""
    ok: bool
    """Whether it came to its end without an error."""


async def run_python(code: str, limits: Limits, sandbox: Kind = "bubblewrap") -> Ran:
    """Run `code` as a program. Equal code gives equal output, unless it looks at the clock or draws from the system.

    Raises:
        EnvError: there is no sandbox, or the interpreter does not start in it.
    """
    if len(code) > limits.code:
        return Ran(f"The code has more than {limits.code} characters and was not run.", False)
    loop = asyncio.get_running_loop()
    async with _gates.setdefault(loop, asyncio.Semaphore(_MOST_AT_ONCE)):
        with _started(code, limits, sandbox) as (process, output):
            raw, status = await _watch(process, output, limits.seconds)
    if not raw.startswith(_BEGUN):
        raise EnvError(f"the sandbox does not start: {raw.decode(errors='replace').strip()[:500] or status}")
    return _told(raw[1:], status, limits)


@contextmanager
def _started(code: str, limits: Limits, sandbox: Kind) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process that runs `code`, and what to read its output from. It is gone at the end, and all that it began."""
    with ExitStack() as stack:
        given = _memory_file(stack, code.encode("utf-8", "replace"))
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, reading)
        os.set_blocking(writing, True)
        command, passed, folder = interpreter(limits), list[int](), None
        try:
            if sandbox == "bubblewrap":
                passed = [_memory_file(stack, each) for each in (threads_only(),) if each is not None]
                command = [*bubblewrap(limits, *passed), *command]
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="palaestra-python-"))
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=writing,
                stderr=writing,
                pass_fds=passed,
                cwd=folder,
                env=environ(folder),
                start_new_session=True,
            )
        except OSError as error:
            raise EnvError(f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            os.close(writing)
        stack.callback(_end, process)
        yield process, reading


def _memory_file(stack: ExitStack, content: bytes) -> int:
    number = os.memfd_create("palaestra")
    stack.callback(os.close, number)
    with open(os.dup(number), "wb") as file:
        file.write(content)
    os.lseek(number, 0, os.SEEK_SET)
    return number


async def _watch(process: subprocess.Popen[bytes], output: int, seconds: float) -> tuple[bytes, str]:
    """What it prints until it ends, and how that was: empty where it ended well."""
    until, raw = time.monotonic() + seconds, bytearray()
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(output, readable.set)
    try:
        while time.monotonic() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout(until - time.monotonic()):
                    await readable.wait()
            readable.clear()
            if (data := _read(output)) == b"":
                return bytes(raw), await _wait(process, until, seconds)
            raw += data or b""
            if len(raw) > _FLOOD:
                return bytes(raw), f"it printed more than {_FLOOD} bytes"
        return bytes(raw), _too_long(seconds)
    finally:
        loop.remove_reader(output)


def _read(output: int) -> bytes | None:
    try:
        return os.read(output, 1 << 16)
    except BlockingIOError:
        return None


async def _wait(process: subprocess.Popen[bytes], until: float, seconds: float) -> str:
    pause = 0.0005
    while (code := process.poll()) is None:
        if time.monotonic() > until:
            return _too_long(seconds)
        await asyncio.sleep(pause)
        pause = min(0.05, 2 * pause)
    return _how(code)


def _how(code: int) -> str:
    number = -code if code < 0 else code - 128  # bubblewrap tells the death of its child as a shell does
    if number == signal.SIGXCPU:
        return "it used more processor time than it may"
    if number == signal.SIGXFSZ:
        return "it wrote a file larger than it may"
    if number > 0:
        return f"it was ended by signal {number}"
    return "" if code == 0 else "error"


def _too_long(seconds: float) -> str:
    return f"it took more than {seconds:g} s"


def _told(raw: bytes, status: str, limits: Limits) -> Ran:
    if status not in ("", "error"):
        return Ran(f"Stopped: {status}.", False)
    text = _ADDRESS.sub("...", raw.decode("utf-8", "replace"))
    if len(text) > limits.output:
        half = limits.output // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return Ran(text, not status)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
