"""A command that is a program of its own."""

from __future__ import annotations

import os
import select
import time
from collections import deque

from palaestra.sandboxes.runner.frames import OVERHEAD, raw
from palaestra.sandboxes.runner.pipes import Pipe
from palaestra.sandboxes.runner.task import Running, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Runner

_LINGER = 0.05
"""Seconds for output of what a program left behind, after its own end."""


class Program(Task):
    """A command with pipes of its own."""

    def __init__(self, runner: Runner, header: Header, payload: bytes) -> None:
        self.runner = runner
        self.run = Running(runner, header)
        self.pipes: dict[str, Pipe] = {}
        self.deadline = self.run.deadline
        self.pid, self._gone, self._killed = 0, 0.0, False
        self._over = False
        """Whether what the program left behind has had its time to print."""
        self._input: deque[bytes] = deque([payload] if payload else [])
        self._more = bool(header.get("stdin"))
        self._stdin = -1
        self._start(header)

    def _start(self, header: Header) -> None:
        runner, spare = self.runner, []
        try:
            for name in ("stdout", "stderr"):
                self.pipes[name] = Pipe(runner, self._readable)
            descriptors = {1: self.pipes["stdout"].theirs, 2: self.pipes["stderr"].theirs}
            if self._input or self._more:
                reading, self._stdin = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._stdin, False)
                spare.append(reading)
                descriptors[0] = reading
            argv = [raw(each) for each in header.get("argv") or ()]
            if not argv:
                argv, script = runner.script(raw(header["shell"]))
                if script >= 0:
                    spare.append(script)
                    descriptors[3] = script
            environ = runner.environ_of(header.get("env") or {}, self.run.id)
            self.pid = runner.spawn(self, argv, runner.folder(header.get("cwd") or ""), environ, descriptors)
        except BaseException:
            self._close()
            raise
        finally:
            for each in spare:
                os.close(each)
        for pipe in self.pipes.values():
            pipe.close_theirs()
            pipe.watch(True)
        self._feed()

    def _readable(self, pipe: Pipe) -> None:
        name = "stdout" if pipe is self.pipes["stdout"] else "stderr"
        room = min(self.run.room, pipe.left) if self._over else self.run.room
        if room <= 0:
            pipe.watch(False)
            return self._settle()
        data = pipe.read(room)
        if data and not self.run.take(name, data):
            return self._stop("flood", 137)
        if (self._gone and not data) or pipe.left == 0:
            self._settle()

    def data(self, header: Header, payload: bytes) -> None:
        self._input.append(payload)
        self._feed()

    def finish(self) -> None:
        self._more = False
        self._feed()

    def _feed(self) -> None:
        if self._stdin < 0:
            return self._input.clear()
        try:
            while self._input:
                part = self._input.popleft()
                done = os.write(self._stdin, part)
                if self._more:
                    self.runner.link.send(
                        {"id": self.run.id, "kind": "ack", "bytes": done + (OVERHEAD if done == len(part) else 0)}
                    )
                if done < len(part):
                    self._input.appendleft(part[done:])
        except BlockingIOError:
            self._input.appendleft(part)
            return self.runner.listen(self._stdin, self._feed, select.EPOLLOUT)
        except OSError:  # it reads no more
            self._input.clear()
            self._more = False
        if self._input:
            self.runner.listen(self._stdin, self._feed, select.EPOLLOUT)
        elif not self._more:
            self.runner.ignore(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        else:
            self.runner.ignore(self._stdin)

    def ack(self, count: int) -> None:
        self.run.credit += count
        for pipe in self.pipes.values():
            pipe.watch(True)

    def exited(self, status: int) -> None:
        self.run.ended(status)
        self._gone = time.monotonic()
        for pipe in self.pipes.values():
            pipe.settle()
        self.deadline = self._gone + _LINGER
        self._settle()

    def _settle(self) -> None:
        open_pipes = [pipe for pipe in self.pipes.values() if pipe.open]
        if self._gone and (not open_pipes or (self._over and not any(pipe.left for pipe in open_pipes))):
            self._report()

    def expire(self) -> None:
        if self._gone:
            self.deadline, self._over = None, True
            for pipe in self.pipes.values():
                pipe.settle()
            self._settle()
        elif self._killed:  # it does not die: something in the kernel holds it
            self._report()
        else:
            self._stop("timeout", 124)

    def _stop(self, ending: str, code: int) -> None:
        if ending == "flood":
            for pipe in self.pipes.values():
                pipe.close()
        if self._gone:
            self.run.ending = ending
            return self._report()
        self.run.ending, self.run.code, self._killed = ending, code, True
        self.deadline = time.monotonic() + 2.0
        self.runner.end(self.pid, self.run.id)

    def _report(self) -> None:
        self.runner.drop(self.run.id)
        self.run.report()
        self._close()

    def _close(self) -> None:
        if self._stdin >= 0:
            self.runner.ignore(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        for pipe in self.pipes.values():
            pipe.close_theirs()
            if self._gone and pipe.open:
                self.runner.forget(pipe)
            else:
                pipe.close()

    def cancel(self) -> None:
        self.runner.end(0 if self._gone else self.pid, self.run.id)
        self._gone = 0.0
        self._close()
