"""The near side of a worker of a vector: its process, the line to it, and what is said when either is gone."""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

from palaestra.envs.isolation.placement import Placement
from palaestra.envs.isolation.zygote import Process, socket_pair, spawn
from palaestra.envs.vector.line import Line
from palaestra.envs.vector.orders import Answer, Make, decode_answer, encode
from palaestra.errors import DataError, DeadlineError, WorkerError

_PATIENCE = 2.0
"""Seconds until nobody knows how a worker ended."""


class Crew:
    """One worker process with the environments of some numbers."""

    def __init__(self, make: Make, placement: Placement) -> None:
        """Start it; the answer to `make` is yet to be received.

        Raises:
            WorkerError: there can be no worker process.
        """
        self.first, self.last, self.index = make.first, make.last, make.worker
        near, far = socket_pair()
        try:
            self.process = spawn(
                "palaestra.envs.vector.worker:serve",
                [far],
                environ=placement.environ,
                memory_bytes=placement.memory_bytes,
            )
        except BaseException:
            near.close()
            far.close()
            raise
        self.line = Line(near)
        self.waiting = False
        """There is an answer to come."""
        self.end = weakref.finalize(self, _end, near, self.process)
        """End it at once, with all that it started."""
        self.end.atexit = False  # everything ends there
        self.send(encode(make), placement.deadlines.create)

    @property
    def alive(self) -> bool:
        """Whether it has not been ended from here."""
        return bool(self.end.alive)

    @property
    def who(self) -> str:
        """Its environments, for messages."""
        return (
            f"environment {self.first}"
            if self.last - self.first == 1
            else f"environments {self.first} to {self.last - 1}"
        )

    def share(self, file: int) -> None:
        """Give it the shared memory; it answers by nothing."""
        self.waiting = True
        with suppress(OSError):
            socket.send_fds(self.line.socket, [bytes(4)], [file])

    def send(self, payload: bytes, seconds: float) -> None:
        """Tell it something; where that fails, `receive` says why."""
        self.waiting = True
        self.line.wait_at_most(seconds)
        with suppress(OSError):
            self.line.send(payload)

    def receive(self, phase: str, until: float, seconds: float, now: Callable[[], int] | None) -> Answer | None:
        """Its answer; `None` where all is in the shared memory.

        Args:
            phase: for messages, as `step`.
            until: by `time.monotonic`.
            seconds: how long that is from the beginning, for messages.
            now: tells which environment it is busy with, if that is known.

        Raises:
            DeadlineError: it did not answer in time, and was ended.
            WorkerError: it is gone, or was ended because what it says is no answer.
        """
        try:
            packed = self.line.receive(until)
        except TimeoutError:
            self.end()
            raise DeadlineError(f"{self._blame(now)}: {phase} took longer than {seconds:g} s; {self._ended}") from None
        except EOFError:
            how = _how(self.process)
            self.end()
            raise WorkerError(f"{self._blame(now)}: the worker process {how} during {phase}; {self._ended}") from None
        self.waiting = False
        if not packed:
            return None
        try:
            return decode_answer(packed)
        except DataError as error:
            self.end()
            raise WorkerError(f"{self._blame(now)}: {error}; {self._ended}") from error

    def _blame(self, now: Callable[[], int] | None) -> str:
        number = -1 if now is None else now()
        return f"environment {number}" if self.first <= number < self.last else self.who

    @property
    def _ended(self) -> str:
        return f"the worker of {self.who} is gone until the next reset"


def _end(near: socket.socket, process: Process) -> None:
    near.close()
    process.kill()


def _how(process: Process) -> str:
    end = time.monotonic() + _PATIENCE
    while not process.ended and time.monotonic() < end:
        time.sleep(0.002)
    return process.ended or "closed its connection"
