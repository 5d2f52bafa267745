"""A session: a shell that lives over several commands."""

from __future__ import annotations

import os
import select
import time

from palaestra.sandboxes.runner.pipes import READ, Pipe
from palaestra.sandboxes.runner.task import Running, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Runner


class Shell(Task):
    """A shell that reads scripts from a pipe and says on another when each is done."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self.runner, self.id = runner, header["id"]
        self._folder, self._environ = runner.folder(""), runner.environ_of({}, self.id)
        self._run: Running | None = None
        self.pid, self._gone = 0, 0.0
        self._pipes: dict[str, Pipe] = {}
        self._scripts, self._token = -1, b""
        self._unsent = b""

    def _begin(self) -> None:
        """Start the shell."""
        reading, self._scripts = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._scripts, False)
        try:
            self._pipes = {name: Pipe(self.runner, self._readable) for name in ("stdout", "stderr", "told")}
            descriptors = {1: self._pipes["stdout"].theirs, 2: self._pipes["stderr"].theirs}
            descriptors.update({3: reading, 4: self._pipes["told"].theirs})
            shell = self.runner.shell
            argv = [shell, b"/proc/self/fd/3"]
            if shell.endswith(b"bash"):
                argv[1:1] = [b"--noprofile", b"--norc"]
            if not os.path.isdir(self._folder):
                self._folder = self.runner.folder("")
            self.pid = self.runner.spawn(self, argv, self._folder, self._environ, descriptors)
        except BaseException:
            self._close()
            raise
        finally:
            os.close(reading)
        for pipe in self._pipes.values():
            pipe.close_theirs()
            pipe.watch(True)
        self._unsent = b"exec 3<&-\n"
        if shell.endswith(b"bash"):
            # The name in its messages; bash before 5.0 takes it for a variable.
            self._unsent += b"BASH_ARGV0=bash; unset BASH_ARGV0 2>/dev/null; shopt -s expand_aliases\n"

    def run(self, header: Header, payload: bytes) -> None:
        """Give it a script."""
        self._run, self._gone = Running(self.runner, header), 0.0
        if not self.pid:
            try:
                self._begin()
            except BaseException:
                self._run = None
                raise
        self.deadline = self._run.deadline
        self._token = os.urandom(12).hex().encode()
        script = payload.replace(b"'", b"'\\''")
        # Without the descriptor of the answer in what it runs; without its own doings in what is traced.
        self._unsent += (
            b"command eval '" + script + b"\n' 4>&-\n{ printf '%s %s\\n' " + self._token + b' "$?" >&4; } 2>/dev/null\n'
        )
        self._feed()

    def _feed(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._scripts, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""
        if self._unsent:
            self.runner.listen(self._scripts, self._feed, select.EPOLLOUT)
        else:
            self.runner.ignore(self._scripts)

    def _readable(self, pipe: Pipe) -> None:
        name = next(name for name, each in self._pipes.items() if each is pipe)
        if name == "told":
            return self._told(pipe)
        room = self._run.room if self._run else READ
        if room <= 0:
            return pipe.watch(False)
        data = pipe.read(room if pipe.left < 0 else max(1, min(room, pipe.left)))
        if data and self._run and not self._run.take(name, data):
            return self._stop("flood", 137)
        self._settle()

    def _told(self, pipe: Pipe) -> None:
        words = (pipe.read() or b"").split()
        if self._run and self._token in words[:-1]:
            code = words[words.index(self._token) + 1]
            self._run.ended((int(code) & 255) << 8 if code.isdigit() else 0)
            self._done()

    def _done(self) -> None:
        """The script came to its end, or the shell did."""
        self._gone = time.monotonic()
        for name in ("stdout", "stderr"):
            self._pipes[name].settle()
        self._look()
        self._settle()

    def _look(self) -> None:
        try:
            self._folder = os.readlink(b"/proc/%d/cwd" % self.pid)
        except OSError:
            pass

    def _settle(self) -> None:
        outputs = [self._pipes[name] for name in ("stdout", "stderr")]
        if self._run and self._gone and not any(pipe.open and pipe.left for pipe in outputs):
            self._report()

    def _report(self) -> None:
        run, self._run, self.deadline, self._gone = self._run, None, None, 0.0
        for pipe in self._pipes.values():
            pipe.left = -1
            pipe.watch(True)
        if run:
            self.runner.drop(run.id)
            run.report()

    def ack(self, count: int) -> None:
        if self._run:
            self._run.credit += count
        for pipe in self._pipes.values():
            pipe.watch(True)

    def exited(self, status: int) -> None:
        self.pid = 0
        if self._run and not self._gone:
            self._run.ended(status)
            self._gone = time.monotonic()
        while self._run and self._pipes:  # what it printed last
            parts = {name: self._pipes[name].read() for name in ("stdout", "stderr") if self._pipes[name].open}
            for name, data in parts.items():
                self._run.take(name, data or b"")
            if not any(parts.values()):
                break
        self._report()
        self._close()

    def expire(self) -> None:
        self._stop("timeout", 124)

    def _stop(self, ending: str, code: int) -> None:
        if self._run:
            self._run.ending, self._run.code = ending, code
        self._look()
        pid, self.deadline = self.pid, None
        self.runner.children.pop(pid, None)
        self.runner.end(pid, self.id)
        self.exited(9)

    def _close(self) -> None:
        if self._scripts >= 0:
            self.runner.ignore(self._scripts)
            os.close(self._scripts)
            self._scripts = -1
        for pipe in self._pipes.values():
            pipe.close()
        self._pipes = {}

    def leave(self) -> None:
        """End it, and what it began."""
        self._stop("signal", 137)

    def cancel(self) -> None:
        self._run = None
        self.leave()


class Script(Task):
    """One script in a shell."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def ack(self, count: int) -> None:
        self._shell.ack(count)

    def cancel(self) -> None:
        self._shell.cancel()
