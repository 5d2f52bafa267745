"""The loop of the runner: one thread that waits for everything at once, starts programs, and reaps what ends."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time
from collections import deque

from palaestra.sandboxes.runner.files import write_all
from palaestra.sandboxes.runner.frames import Link, raw, shown
from palaestra.sandboxes.runner.processes import MARK, Processes, found, head_of, started_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from palaestra.sandboxes.runner.pipes import Pipe
    from palaestra.sandboxes.runner.shell import Shell
    from palaestra.sandboxes.runner.task import Task

    Environ = dict[bytes, bytes]

_FORGOTTEN = 64
"""Pipes kept open for what finished commands left running, so that it does not end by writing to them."""
_ARGUMENT = 120_000
"""Bytes of a script beyond which it does not fit into an argument."""
_DYING = 1.0
"""Seconds for what is killed to be gone."""
_IGNORED = [signal.SIGPIPE, signal.SIGXFSZ]
"""What Python ignores and programs should not."""
_OOM_COUNTERS = (b"/sys/fs/cgroup/memory.events", b"/sys/fs/cgroup/memory/memory.oom_control")


class Runner:
    """The loop, and what it was told about the sandbox."""

    def __init__(self, reading: int, writing: int) -> None:
        self.link = Link(reading, writing)
        self.children: dict[int, Task] = {}
        """The programs of commands and shells."""
        self.shell = b"/bin/sh"
        """Absolute path."""
        self._tasks: dict[int, Task] = {}
        self._shells: dict[int, Shell] = {}
        self._forgotten: deque[Pipe] = deque()
        self._processes = Processes(self.children)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._poll = select.epoll()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._work, self._environ = b"/", dict(os.environb)
        self._memory = 0
        self._end = float("inf")
        self._counter = next((path for path in _OOM_COUNTERS if b"oom_kill" in head_of(path)), b"")
        self._writing = False
        self._wake_up()

    def _wake_up(self) -> None:
        """Have the end of a child end the wait of the loop."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the first process of a sandbox ignores

        def woken() -> None:
            os.read(reading, 4096)
            self._reap()

        self.listen(reading, woken)

    def serve(self) -> None:
        """Until the other side is gone or the sandbox's time is up."""
        try:
            while time.monotonic() < self._end:
                busy = self._pump()
                if bool(self.link.waiting) != self._writing:
                    self._writing = not self._writing
                    self._poll.register(self.link.writing, select.EPOLLOUT) if self._writing else self._poll.unregister(
                        self.link.writing
                    )
                for fd, _ in self._poll.poll(0 if busy else self._patience()):
                    if fd == self.link.writing and self._writing:
                        self.link.flush()
                    elif fd in self._handlers:
                        self._handlers[fd]()
                self._expire()
        except EOFError:
            pass

    def _pump(self) -> bool:
        return sum(task.pump() for task in list(self._tasks.values())) > 0

    def _patience(self) -> float:
        deadlines = [task.deadline for task in self._waiting() if task.deadline is not None]
        return max(0.0, min([self._end, time.monotonic() + 3600.0, *deadlines]) - time.monotonic())

    def _waiting(self) -> list[Task]:
        return [*self._tasks.values(), *self._shells.values()]

    def _expire(self) -> None:
        now = time.monotonic()
        for task in self._waiting():
            if task.deadline is not None and task.deadline <= now:
                task.expire()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            task = self.children.pop(pid, None)
            if task:
                task.exited(status)

    # What tasks need.

    def listen(self, fd: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Have `handler` called when something can be read or written."""
        if fd not in self._handlers:
            self._poll.register(fd, events)
        self._handlers[fd] = handler

    def ignore(self, fd: int) -> None:
        """No more of that."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def drop(self, id: int) -> None:
        """A request is answered."""
        self._tasks.pop(id, None)

    def refuse(self, id: int, error: Exception) -> None:
        """Answer a request with an error."""
        if isinstance(error, OSError):
            name = error.filename
            where = shown(name) if isinstance(name, bytes) else str(name or "")
            text = (where + ": " if where else "") + (error.strerror or str(error))
        else:
            text = str(error) or type(error).__name__
        self.link.send({"id": id, "kind": "error", "text": text})

    def ooms(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        words = head_of(self._counter).split() if self._counter else []
        return int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0

    def path(self, name: str) -> bytes:
        """Absolute."""
        if not name:
            raise ValueError("an empty path")
        return os.path.join(self._work, raw(name))

    def folder(self, name: str) -> bytes:
        """A command's folder."""
        return os.path.join(self._work, raw(name))

    def environ_of(self, more: dict[str, str], id: int) -> Environ:
        """A command's variables."""
        return {**self._environ, **{raw(name): raw(value) for name, value in more.items()}, MARK: b"%d" % id}

    def script(self, text: bytes) -> tuple[list[bytes], int]:
        """The command for a script, and the descriptor to be its number 3, or -1."""
        if len(text) <= _ARGUMENT:
            return [self.shell, b"-c", text], -1
        file = os.memfd_create("script")
        write_all(file, text)
        os.lseek(file, 0, os.SEEK_SET)
        return [self.shell, b"/proc/self/fd/3"], file

    def spawn(self, task: Task, argv: list[bytes], folder: bytes, environ: Environ, descriptors: dict[int, int]) -> int:
        """Start a program in a session of its own.

        Raises:
            OSError: the folder or the program is not there, or nothing can be started.
        """
        os.chdir(folder)
        program = found(argv[0], environ.get(b"PATH", os.defpath.encode()))
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in {0: self._null, **descriptors}.items()]
        if self._memory:
            resource.setrlimit(resource.RLIMIT_AS, (self._memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
        try:
            pid = self._posix_spawn(program, argv, environ, actions)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            pid = self._posix_spawn(b"/bin/sh", [b"/bin/sh", program, *argv[1:]], environ, actions)
        finally:
            if self._memory:
                most = resource.getrlimit(resource.RLIMIT_AS)[1]
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
        self.children[pid] = task
        self._mark(pid)
        return pid

    @staticmethod
    def _posix_spawn(program: bytes, argv: list[bytes], environ: Environ, actions: list[tuple[int, int, int]]) -> int:
        return os.posix_spawn(
            program, argv, environ, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_IGNORED
        )

    def _mark(self, pid: int) -> None:
        """Make its memory limit final, or where there is one for all, have it killed before this process."""
        try:
            if self._memory:
                resource.prlimit(pid, resource.RLIMIT_AS, (self._memory, self._memory))
            if self._counter:
                file = os.open(b"/proc/%d/oom_score_adj" % pid, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(file, b"1000")
                finally:
                    os.close(file)
        except OSError:
            pass

    def end(self, main: int, command: int) -> None:
        """Kill, see `Processes.end`, and wait until it is gone, unless the kernel holds it."""
        killed, until = self._processes.end(main, command), time.monotonic() + _DYING
        self._reap()
        while killed and time.monotonic() < until:
            time.sleep(0.002)
            self._reap()
            killed = {each for each in killed if started_at(each[0]) == each[1]}

    def forget(self, pipe: Pipe) -> None:
        """Go on reading what nobody wants to know."""
        pipe.left = -1

        def read(pipe: Pipe) -> None:
            if pipe.read() == b"" and pipe in self._forgotten:
                self._forgotten.remove(pipe)

        pipe.watch(False)
        pipe.handle(read)
        pipe.watch(True)
        self._forgotten.append(pipe)
        while len(self._forgotten) > _FORGOTTEN:
            self._forgotten.popleft().close()
