"""The near side: the judges of this process, few of them, each replaced when an answer has killed it."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time

import msgspec

from palaestra.envs.reasoning.judge import Reply, Wanted
from palaestra.errors import ConfigError, DeadlineError, EnvError, MissingExtraError, WorkerError

MOST = max(1, min(4, os.cpu_count() or 1))
"""Judges at once."""
WALL = 4.0
"""A judge is killed from outside after this many times the processor time that a request has, and a minute more."""
_KINDS = {"config": ConfigError, "env": EnvError}


def ask(wanted: Wanted) -> Reply:
    """Have one request answered; blocks.

    Raises:
        ConfigError: generator, difficulty and config do not fit.
        DeadlineError: it took longer than it may.
        EnvError: the generator failed.
        MissingExtraError: reasoning-gym is not installed.
        WorkerError: the judge died, twice.
    """
    with _places:
        for left in (1, 0):
            judge = _take()
            try:
                reply = judge.ask(wanted)
            except WorkerError:
                judge.kill()
                if not left:
                    raise
            except BaseException:
                judge.kill()
                raise
            else:
                _idle.append(judge)
                break
    if reply.kind == "missing":
        raise MissingExtraError("reasoning_gym", "reasoning")
    if reply.kind:
        raise _KINDS[reply.kind](reply.error)
    return reply


class Judge:
    """One process."""

    def __init__(self) -> None:
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}
        environ |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-P", "-m", "palaestra.envs.reasoning.judge"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, start_new_session=True
        )
        self.owner = os.getpid()

    def ask(self, wanted: Wanted) -> Reply:
        """Raises:
        DeadlineError: no reply in time.
        WorkerError: the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(wanted) + b"\n")
            self._process.stdin.flush()
            line = _line(self._process.stdout.fileno(), time.monotonic() + WALL * wanted.seconds + 60)
        except OSError as error:
            raise WorkerError(f"the judge of reasoning is gone: {error}") from error
        if line:
            return msgspec.json.decode(line, type=Reply)
        code = self._process.wait()
        if code == -signal.SIGPROF:
            raise DeadlineError(f"{wanted.generator} took more than {wanted.seconds:g} s")
        raise WorkerError(f"the judge of reasoning ended with code {code}")

    def kill(self) -> None:
        """End it, and close its pipes; of a copy that a fork made, only the pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:
            self._process.returncode = 0  # somebody else's child


def _line(pipe: int, until: float) -> bytes:
    """One line; empty at the end of the pipe. Raises `DeadlineError` when it is not there in time."""
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not parts or not parts[-1].endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                raise DeadlineError("the judge of reasoning does not answer")
            part = os.read(pipe, 1 << 20)
            if not part:
                return b""
            parts.append(part)
    return b"".join(parts)


_places = threading.BoundedSemaphore(MOST)
_idle: list[Judge] = []


def _take() -> Judge:
    """One that is idle, or a new one. Those that were there before a fork belong to the other process."""
    while _idle:
        judge = _idle.pop()
        if judge.owner == os.getpid():
            return judge
        judge.kill()
    return Judge()


def close() -> None:
    """End the judges that are idle; the next request starts another."""
    while _idle:
        _idle.pop().kill()


def _forked() -> None:
    """The locks of a forked process are its own; of the judges it closes its copies."""
    global _places
    _places = threading.BoundedSemaphore(MOST)
    close()


atexit.register(close)
os.register_at_fork(after_in_child=_forked)
