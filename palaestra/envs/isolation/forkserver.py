"""The fork server: a small process of one thread that forks workers, watches them and ends them.

It is started by `zygote`, never forked from a process that may have threads, and has little more in it than what every
worker needs. Whatever workers leave behind becomes its child, so nothing can escape it; when the process that started
it is gone, however that ended, it ends everything below it and itself.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import msgspec

from palaestra.envs.isolation import proc
from palaestra.envs.isolation.wire import receive_sockets
from palaestra.envs.registry import load_object

MOST_BYTES = 1 << 18
"""Largest order."""
WATCH_SECONDS = 0.05
"""Between two looks at the memory of workers."""
STRAY_SECONDS = 0.05
"""From the end of a worker to the search for what it left behind; ends within it share one search."""
WORDS = 2000
"""Bytes of a worker's output that are kept for the message of its end."""


class Setup(msgspec.Struct, frozen=True, tag=True):
    """What workers forked from now on find."""

    path: list[str] | None
    """`sys.path`; `None` keeps the interpreter's own."""
    environ: dict[str, str]
    files: dict[str, str]
    """Modules that no path leads to, by name: their files."""
    main: str | None
    """The file that was run as a program, for entry points in `__main__`."""


class Spawn(msgspec.Struct, frozen=True, tag=True):
    """Fork a worker; its sockets come with this order."""

    id: int
    target: str
    """`module:function`, called with the sockets."""
    memory_bytes: int | None


class Kill(msgspec.Struct, frozen=True, tag=True):
    """End a worker and all that it started."""

    id: int


class Forking(msgspec.Struct, frozen=True, tag=True):
    """A worker may fork itself now: strange children are not strays until its `Adopt` has come."""

    id: int


class Adopt(msgspec.Struct, frozen=True, tag=True):
    """A worker has forked itself: its copies, by id."""

    parent: int
    pids: dict[int, int]


class Started(msgspec.Struct, frozen=True, tag=True):
    """A worker runs."""

    id: int
    pid: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A worker is gone, or never was."""

    id: int
    how: str


Order = Setup | Spawn | Kill | Forking | Adopt
Report = Started | Ended

_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


class _Words:
    """The last of what a worker, and its copies, said on stdout and stderr."""

    def __init__(self, pipe: int) -> None:
        self.pipe, self.bytes = pipe, b""

    def read(self) -> bool:
        """Take what there is; `False` at the end."""
        if self.pipe < 0:
            return False
        try:
            data = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return True
        self.bytes = (self.bytes + data)[-WORDS:]
        return bool(data)

    @property
    def last(self) -> str:
        lines = [line for line in self.bytes.decode(errors="replace").splitlines() if line.strip()]
        return " ".join(lines[-1].split())[:300] if lines else ""


class _Worker(msgspec.Struct):
    id: int
    pid: int
    memory_bytes: int | None
    words: _Words
    blame: str = ""
    """Why it was killed, where that was decided here."""


class ForkServer:
    """Takes orders from `control`, reports on it, and returns from `run` only where there is no control any more."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.control.setblocking(False)
        self.pid = os.getpid()
        self.setup = Setup(None, {}, {}, None)
        self.workers: dict[int, _Worker] = {}
        """By process id."""
        self.forking: dict[int, _Worker | None] = {}
        """Workers that fork themselves now, by id; they may end meanwhile."""
        self.unknown: dict[int, int] = {}
        """Exit statuses of children that were no worker yet, by process id."""
        self.reports: deque[bytes] = deque()
        self.controlled = True
        """Whether somebody is there who may give orders."""
        self.strays_at: float | None = None
        self.watch_at = self.tree_at = 0.0
        self.tree: dict[int, list[int]] = {}
        self.awake, wake = socket.socketpair()
        self.awake.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.selector.register(self.awake, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until `control` ends; then end everything."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            while self._turn():
                pass
        except Exception:
            traceback.print_exc()
        finally:
            end_everything()

    def _turn(self) -> bool:
        for key, events in self.selector.select(self._patience()):
            if key.fileobj is self.control:
                if events & selectors.EVENT_READ:
                    self._obey()
            elif key.fileobj is self.awake:
                self.awake.recv(4096)
            elif not key.data.read():
                self._forget(key.data)
        self._reap()
        now = time.monotonic()
        if self.strays_at is not None and now >= self.strays_at and not self.forking:
            self._find_strays()
        if now >= self.watch_at:
            self._watch(now)
        self._report()
        return self.controlled

    def _patience(self) -> float | None:
        times = []
        if self.strays_at is not None and not self.forking:
            times.append(self.strays_at)
        if any(worker.memory_bytes for worker in self.workers.values()):
            times.append(self.watch_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _obey_all(self) -> None:
        """Do what has been ordered up to now.

        What was seen of processes before this call was done after its order: a copy is made after its `Forking`.
        """
        while self.controlled and self._obey():
            pass

    def _obey(self) -> bool:
        """Do what has been ordered next; whether there was anything."""
        try:
            data, sockets = receive_sockets(self.control, MOST_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data, sockets = b"", []
        if not data:
            self.controlled = False
            return False
        order = _ORDERS.decode(data)
        if isinstance(order, Setup):
            self.setup = order
        elif isinstance(order, Spawn):
            self._spawn(order, sockets)
        elif isinstance(order, Kill):
            self._kill(order.id)
        elif isinstance(order, Forking):
            self.forking[order.id] = self._find(order.id)
        else:
            self._adopt(order)
        return True

    def _spawn(self, order: Spawn, sockets: list[socket.socket]) -> None:
        pipe = write = -1
        try:
            pipe, write = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(pipe, False)
            pid = os.fork()
        except OSError as error:
            for fd in (pipe, write):
                if fd >= 0:
                    os.close(fd)
            self._say(Ended(order.id, f"could not be started: {error.strerror}"))
            return
        finally:
            if os.getpid() == self.pid:
                for each in sockets:
                    each.close()
        if pid == 0:
            _become_worker(self.pid, self.setup, order.target, sockets, write)
        os.close(write)
        words = _Words(pipe)
        self.selector.register(pipe, selectors.EVENT_READ, words)
        self.workers[pid] = _Worker(order.id, pid, order.memory_bytes, words)
        self._say(Started(order.id, pid))

    def _find(self, id: int) -> _Worker | None:
        return next((worker for worker in self.workers.values() if worker.id == id), None)

    def _kill(self, id: int) -> None:
        worker = self._find(id)
        if worker is not None:
            self._end(worker, "")

    def _end(self, worker: _Worker, blame: str) -> None:
        worker.blame = worker.blame or blame
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            proc.kill(worker.pid)  # it has not got its own group yet

    def _adopt(self, order: Adopt) -> None:
        parent = self.forking.pop(order.parent, None)
        for id, pid in order.pids.items():
            if parent is None or pid in self.unknown:
                proc.kill(pid)
                self._say(Ended(id, _how(self.unknown.pop(pid, signal.SIGKILL))))
            else:
                self.workers[pid] = _Worker(id, pid, parent.memory_bytes, parent.words)
                self._say(Started(id, pid))
        if not self.forking:
            self.unknown.clear()  # their numbers may be given again

    def _reap(self) -> None:
        while pid := _ended_child():
            self._obey_all()  # it may be a copy, or have been copied, and `Forking` not have been read
            status = os.waitpid(pid, 0)[1]
            if self.strays_at is None:
                self.strays_at = time.monotonic() + STRAY_SECONDS
            worker = self.workers.pop(pid, None)
            if worker is not None:
                self._ended(worker, status)
            elif self.forking:
                self.unknown[pid] = status

    def _ended(self, worker: _Worker, status: int) -> None:
        worker.words.read()
        how = worker.blame or _how(status)
        last = worker.words.last
        if last and not worker.blame and status:
            how += f"; its last words: {last}"
        self._say(Ended(worker.id, how))

    def _forget(self, words: _Words) -> None:
        self.selector.unregister(words.pipe)
        os.close(words.pipe)
        words.pipe = -1

    def _find_strays(self) -> None:
        """Kill children that are no workers: they were left by workers that have ended."""
        found = proc.children().get(self.pid, ())
        self._obey_all()  # a copy may be among those found
        if self.forking:
            return  # until it is known which are copies
        self.strays_at = None
        for pid in found:
            if pid not in self.workers:
                proc.kill(pid)

    def _watch(self, now: float) -> None:
        limited = [worker for worker in self.workers.values() if worker.memory_bytes]
        if limited and now >= self.tree_at:
            self.tree = proc.children()
            self.tree_at = now + 20 * (time.monotonic() - now) + WATCH_SECONDS  # a twentieth of our time, at most
        for worker in limited:
            assert worker.memory_bytes
            family = [worker.pid, *proc.descendants(worker.pid, self.tree, self.workers)]
            used = sum(map(proc.resident_bytes, family))
            if used > worker.memory_bytes:
                self._end(worker, f"used {_size(used)}, more than its limit of {_size(worker.memory_bytes)}")
        spent = time.monotonic() - now
        self.watch_at = now + spent + max(WATCH_SECONDS, 10 * spent)

    def _say(self, report: Report) -> None:
        self.reports.append(msgspec.msgpack.encode(report))

    def _report(self) -> None:
        """Send what can be sent now; whoever reads late gets it late."""
        events = selectors.EVENT_READ
        while self.reports:
            try:
                self.control.send(self.reports[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                events |= selectors.EVENT_WRITE
                break
            except OSError:
                self.reports.clear()
                break
            self.reports.popleft()
        self.selector.modify(self.control, events)


def _ended_child() -> int:
    """A child that has ended and is not waited for yet, so that its number is nobody else's; 0 if there is none."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found is not None else 0


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = f" ({signal.Signals(number).name})"
        except ValueError:
            name = ""
        return f"was killed by signal {number}{name}"
    return f"exited with code {os.waitstatus_to_exitcode(status)}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def end_everything(seconds: float = 10.0) -> None:
    """Kill all descendants of this process, and theirs that turn up meanwhile, for at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in proc.descendants(os.getpid(), proc.children()):
            proc.kill(pid)
        time.sleep(0.002)


def _become_worker(server: int, setup: Setup, target: str, sockets: Sequence[socket.socket], output: int) -> NoReturn:
    def work() -> None:
        _leave_server(server, sockets, output)
        _set_up(setup)
        load_object(target)(*sockets)

    proc.do_and_end(work)


def _leave_server(server: int, sockets: Sequence[socket.socket], output: int) -> None:
    """Become a process of its own, which has nothing of the server's."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    proc.die_with_parent()
    if os.getppid() != server:
        os._exit(1)
    proc.adopt_orphans(True)
    os.dup2(output, 1)
    os.dup2(output, 2)
    proc.close_files({0, 1, 2, *(each.fileno() for each in sockets)})
    resource.setrlimit(resource.RLIMIT_NOFILE, _FILES)


def _set_up(setup: Setup) -> None:
    if setup.path is not None:
        sys.path[:] = setup.path
    os.environ.clear()
    os.environ.update(setup.environ)
    sys.meta_path.append(_PlainFiles(setup.files))
    if setup.main is not None:
        sys.modules["__main__"] = _Main(setup.main)


class _PlainFiles:
    """Finds modules that were imported from files which no path leads to."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self._files.get(name)
        return None if file is None else importlib.util.spec_from_file_location(name, file)


class _Main(ModuleType):
    """The program's own file, run under another name as soon as something in it is asked for."""

    def __init__(self, file: str) -> None:
        super().__init__("__main__")
        self.__dict__["_file"] = file

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (file := self.__dict__.pop("_file", None)) is None:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        self.__dict__.update(
            {key: value for key, value in runpy.run_path(file, run_name="__worker__").items() if key[:2] != "__"}
        )
        return getattr(self, name)


_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)


def main(fd: int) -> None:
    """Serve orders on the socket `fd`."""
    import palaestra.envs.isolation.worker  # noqa: F401  # what nearly every worker needs

    proc.adopt_orphans(True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES[1], _FILES[1]))
    gc.collect()
    gc.freeze()
    ForkServer(socket.socket(fileno=fd)).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
