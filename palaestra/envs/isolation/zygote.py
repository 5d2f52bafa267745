"""Worker processes that are safe to fork, kill and lose: `spawn` has a fork server start one.

One fork server runs for each interpreter and environment, started when first needed and gone with this process.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO

import msgspec

from palaestra.envs.isolation import forkserver, wire
from palaestra.envs.isolation.forkserver import Adopt, Ended, Forking, Kill, Setup, Spawn, Started
from palaestra.errors import WorkerError

SEND_SECONDS = 30
"""Until a fork server that takes no orders counts as gone."""
END_SECONDS = 10.0
"""Time for a fork server to end everything."""

_BOOT = """
import sys
sys.path[:] = sys.argv[2:] or sys.path
from palaestra.envs.isolation.forkserver import main
main(int(sys.argv[1]))
"""

_DEFAULTS = {
    # Threads of number libraries would make forking wrong, and many workers share few cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Environments that iterate over sets play the same in every run.
    "PYTHONHASHSEED": "0",
}
_HEAP = {
    # Large pages, where the kernel gives them to who asks: copying the page tables is most of what a fork costs.
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

_REPORTS: msgspec.msgpack.Decoder[Started | Ended] = msgspec.msgpack.Decoder(Started | Ended)
_IDS = itertools.count(1)
_LOCK = threading.RLock()


class Process:
    """A worker process."""

    def __init__(self, server: _Server, id: int) -> None:
        self._server, self._id = server, id
        self._pid: int | None = None
        self._how = ""

    @property
    def ended(self) -> str:
        """How it ended, as in "exited with code 0", "was killed by signal 9 (SIGKILL)"; empty while it lives."""
        if not self._how:
            self._server.read()
        return self._how

    @property
    def pid(self) -> int:
        """Its process id; waits until it is known.

        Raises:
            WorkerError: it could not be started.
        """
        end = time.monotonic() + SEND_SECONDS
        while self._pid is None:
            if self.ended or time.monotonic() > end:
                raise WorkerError(f"a worker process {self._how or 'did not start'}")
            if self._pid is None:
                time.sleep(0.001)
        return self._pid

    def kill(self) -> None:
        """End it at once, with everything that it started. Never raises."""
        if not self._how:
            with suppress(WorkerError):
                self._server.order(Kill(self._id))

    async def why(self, patience: float = 2.0) -> str:
        """How it ended, for a message; waits a little until that is known."""
        end = time.monotonic() + patience
        while not self.ended and time.monotonic() < end:
            await asyncio.sleep(0.002)
        return self._how or "closed its connection"

    @contextmanager
    def forking(self) -> Iterator[_Copies]:
        """While it forks itself: what it makes outside of this counts as left behind, and is killed."""
        copies = _Copies(self._server)
        self._server.order(Forking(self._id))
        try:
            yield copies
        finally:
            self._server.order(Adopt(self._id, copies.pids))


class _Copies:
    """The copies that a process makes of itself."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.pids: dict[int, int] = {}

    def add(self, pid: int) -> Process:
        """One of them, from now on a worker like every other."""
        process = self._server.process()
        self.pids[process._id] = pid
        return process


def spawn(
    target: str,
    sockets: Sequence[socket.socket],
    *,
    python: str = sys.executable,
    environ: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
) -> Process:
    """Start a worker process. Returns at once; the process runs some milliseconds later.

    Args:
        target: `module:function`, called in the worker with `sockets`; when it returns, the worker ends.
        sockets: they move there, and are closed here.
        python: its interpreter. With another one than this process's, modules are found as that finds them.
        environ: environment variables beside those of this process.
        memory_bytes: the worker is killed when it and its descendants hold more.

    The worker finds modules where this process does. What it prints goes nowhere, but the last line is part of the
    message when it fails.

    Raises:
        WorkerError: the fork server cannot be started, or this platform has none.
    """
    with _LOCK:
        server = _server(python, dict(environ or {}))
        process = server.process()
        server.set_up()
        server.order(Spawn(process._id, target, memory_bytes), sockets)
    for each in sockets:
        each.close()
    return process


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets.

    Raises:
        WorkerError: there are too many open files.
    """
    try:
        return socket.socketpair()
    except OSError as error:
        raise _too_many(error) from error


def _too_many(error: OSError) -> WorkerError:
    return WorkerError(
        f"cannot open another connection to a worker: {error.strerror}; "
        f"raise the limit (ulimit -n) or lower the placement's concurrency"
    )


class _Server:
    """The near side of a fork server."""

    def __init__(self, python: str, environ: dict[str, str]) -> None:
        self.python, self.environ = python, environ
        self.dead = ""
        self._processes: dict[int, Process] = {}
        self._setup: Setup | None = None
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # read when it has ended
        self._control, self._program = self._start()

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        if sys.platform != "linux":
            raise WorkerError(f"worker processes need Linux, and this is {sys.platform}; use placement='thread'")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Python's own timeout would make reading wait too.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        path = sys.path if self.python == sys.executable else []
        try:
            program = subprocess.Popen(
                [self.python, "-P", "-c", _BOOT, str(far.fileno()), *(entry or os.getcwd() for entry in path)],
                env={**_DEFAULTS, **_HEAP, **_own_environ(), **self.environ},
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                start_new_session=True,
            )
        except OSError as error:
            near.close()
            self._words.close()
            raise WorkerError(f"cannot start {self.python}: {error.strerror}") from error
        finally:
            far.close()
        return near, program

    def process(self) -> Process:
        """A new worker of this server, which is yet to be started."""
        process = Process(self, next(_IDS))
        with _LOCK:
            self._processes[process._id] = process
        return process

    def set_up(self) -> None:
        """Tell what new workers find, where that has changed."""
        path = [entry or os.getcwd() for entry in sys.path] if self.python == sys.executable else None
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        setup = Setup(
            path=path,
            environ={**_DEFAULTS, **_own_environ(), **self.environ},
            files=_plain_files() if path is not None else {},
            main=os.path.abspath(main) if main else None,
        )
        if setup != self._setup:
            self.order(setup)
            self._setup = setup

    def order(self, order: forkserver.Order, sockets: Sequence[socket.socket] = ()) -> None:
        """Have something done.

        Raises:
            WorkerError: the server is gone.
        """
        with _LOCK:
            try:
                wire.send_sockets(self._control, msgspec.msgpack.encode(order), sockets)
            except (OSError, ValueError) as error:
                self.read()
                raise WorkerError(self.dead or f"the fork server of {self.python} does not answer: {error}") from error

    def read(self) -> None:
        """Take in what it reports, without waiting."""
        with _LOCK:
            while not self.dead:
                try:
                    data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                except OSError:
                    data = b""
                if not data:
                    self._died()
                    return
                self._note(_REPORTS.decode(data))

    def _note(self, report: Started | Ended) -> None:
        process = self._processes.get(report.id)
        if process is None:
            return
        if isinstance(report, Started):
            process._pid = report.pid
        else:
            process._how = report.how
            del self._processes[report.id]

    def _died(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._program.wait(END_SECONDS)
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"code {self._program.returncode}")
        self.dead = f"the fork server of {self.python} ended: {last.strip()[:500]}"
        for process in self._processes.values():
            process._how = self.dead
        self._processes.clear()
        self._control.close()
        self._words.close()

    def end(self) -> None:
        """Let it end everything and itself."""
        with _LOCK:
            if not self.dead:
                self._control.shutdown(socket.SHUT_RDWR)
                self._died()

    def abandon(self) -> None:
        """Forget it: it belongs to the process that this one was forked from."""
        self._control.close()
        self._program.returncode = 0  # not ours to wait for
        self.dead = "the fork server belongs to another process"
        self._processes.clear()


_SERVERS: dict[tuple[str, tuple[tuple[str, str], ...]], _Server] = {}


def _server(python: str, environ: dict[str, str]) -> _Server:
    key = (python, tuple(sorted(environ.items())))
    server = _SERVERS.get(key)
    if server is not None:
        server.read()
    if server is None or server.dead:
        server = _SERVERS[key] = _Server(python, environ)
    return server


def _own_environ() -> dict[str, str]:
    """This process's environment variables, but for the token of its servers: that is none of an environment's."""
    return {key: value for key, value in os.environ.items() if key != "PALAESTRA_TOKEN"}


def _plain_files() -> dict[str, str]:
    """Modules that were imported from files outside `sys.path`."""
    found, folders = {}, set(sys.path)
    for name, module in list(sys.modules.items()):
        file = _file_of(module)
        if file is not None and "." not in name and _folder(file) not in folders:
            found[name] = file
    return found


def _file_of(module: ModuleType) -> str | None:
    file = getattr(getattr(module, "__spec__", None), "origin", None)
    return file if isinstance(file, str) and file.endswith(".py") else None


def _folder(file: str) -> str:
    path = Path(file)
    return str(path.parent.parent if path.name == "__init__.py" else path.parent)


def shut_down() -> None:
    """End all workers and fork servers; another `spawn` starts anew. Also done when the interpreter exits."""
    with _LOCK:
        for server in _SERVERS.values():
            server.end()
        _SERVERS.clear()


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.RLock()
    for server in _SERVERS.values():
        server.abandon()
    _SERVERS.clear()


atexit.register(shut_down)
os.register_at_fork(after_in_child=_after_fork)
