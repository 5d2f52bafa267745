"""Worker processes between two environments: kept ready, reused so many times, ended when nobody comes back."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from palaestra.envs.isolation.wire import Frames, Prepare, frame
from palaestra.envs.isolation.zygote import Process, socket_pair, spawn

MOST_IDLE = 256
"""Idle workers of a kind that are kept."""
IDLE_SECONDS = 600.0
"""A worker that was idle for longer is ended, when one of its kind comes or goes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A kind of worker. What was of use to one environment serves only those that come from the same code."""

    python: str
    environ: tuple[tuple[str, str], ...]
    memory_bytes: int | None
    entry_point: str
    reuse: int
    """Environments that one worker makes."""
    warm: int
    """Idle workers to keep ready."""


class Worker:
    """A worker process and the connection to it. It ends with this object."""

    def __init__(self, near: socket.socket, process: Process, wanted: Wanted, *, copied: bool = False) -> None:
        near.setblocking(False)
        self.socket, self.process, self.wanted = near, process, wanted
        self.copied = copied
        """It came about in the midst of an episode, and serves no other environment than that."""
        self.frames = Frames()
        self.used = 0
        self.idle_since = 0.0
        self.end = weakref.finalize(self, _end, near, process)
        """End it at once, with all that it started."""
        self.end.atexit = False  # everything ends there

    @property
    def worth_keeping(self) -> bool:
        """Whether it may serve another environment."""
        return not self.copied and self.used < self.wanted.reuse

    @property
    def well(self) -> bool:
        """Whether it lives, and has nothing to say unasked."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self.process.ended
        except OSError:
            pass
        return False


def _end(near: socket.socket, process: Process) -> None:
    near.close()
    process.kill()


class Pool:
    """The idle workers of this process, for all of its event loops and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Wanted, list[Worker]] = defaultdict(list)
        """Longest idle first."""

    def take(self, wanted: Wanted) -> Worker:
        """An idle worker, else a new one. Does not wait.

        Raises:
            WorkerError: there can be no worker process.
        """
        with self._lock:
            idle = self._idle[wanted]
            worker = next((one for one in iter(lambda: idle.pop() if idle else None, None) if one.well), None)
            worker = worker or _start(wanted)
            self._expire()
            while len(idle) < wanted.warm:
                idle.insert(0, _prepared(wanted))
        worker.used += 1
        return worker

    def give_back(self, worker: Worker) -> None:
        """Keep a worker for the next environment. It has been told to release the last one."""
        with self._lock:
            worker.idle_since = time.monotonic()
            self._idle[worker.wanted].append(worker)
            self._expire()

    def clear(self) -> None:
        """End all idle workers."""
        with self._lock:
            for idle in self._idle.values():
                for worker in idle:
                    worker.end()
            self._idle.clear()

    def _expire(self) -> None:
        too_old = time.monotonic() - IDLE_SECONDS
        for wanted, idle in self._idle.items():
            while len(idle) > max(wanted.warm, 0) and (len(idle) > MOST_IDLE or idle[0].idle_since < too_old):
                idle.pop(0).end()

    def abandon(self) -> None:
        """Forget them: they belong to the process that this one was forked from."""
        self._lock = threading.Lock()
        for idle in self._idle.values():
            for worker in idle:
                worker.end.detach()
                worker.socket.close()
        self._idle.clear()


def _start(wanted: Wanted) -> Worker:
    near, far = socket_pair()
    try:
        process = spawn(
            "palaestra.envs.isolation.worker:serve",
            [far],
            python=wanted.python,
            environ=dict(wanted.environ),
            memory_bytes=wanted.memory_bytes,
        )
    except BaseException:
        near.close()
        far.close()
        raise
    return Worker(near, process, wanted)


def _prepared(wanted: Wanted) -> Worker:
    """A new worker that imports the environment's code before anybody needs it."""
    worker = _start(wanted)
    worker.idle_since = time.monotonic()
    with suppress(OSError):
        worker.socket.send(frame(Prepare(wanted.entry_point)))
    return worker


POOL = Pool()

os.register_at_fork(after_in_child=POOL.abandon)
