"""The first process of a sandbox: it runs commands and moves files for whoever holds the other end of its stdin.

It is given to `python3 -I -S -u -c` of whatever image there is, so that it is one file that needs nothing but Python
3.8. One loop without threads; as process 1 of its sandbox it cannot be killed from inside, and reaps what others leave
behind. When its stdin ends it ends, and with it, by the kernel's hand, everything in the sandbox.

A frame, in both directions: two lengths (32 bits, big-endian), a header in JSON, a payload. Requests carry an `id` and
are answered in any order. Data counts against a window per request and direction, opened again by `ack`. Bytes in
headers are text by UTF-8 with surrogate escapes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    Header = dict[str, Any]
    Environ = dict[bytes, bytes]
    Frame = tuple[Header, bytes]

FRAME = struct.Struct(">II")
CHUNK = 1 << 18
"""Bytes of a payload that is part of something longer."""
WINDOW = 1 << 20
"""Bytes that may be under way for one request in one direction before the other side acknowledges some."""
OVERHEAD = 256
"""What a frame counts against the window beside its payload."""
LONGEST = 16 << 20
"""Bytes of a header or a payload beyond which the other side is not what it should be."""
_READ = 1 << 16
_OURS = 128
"""Descriptors from here on are this process's own."""
_LINGER = 0.05
"""Seconds for output of what a program left behind, after its own end."""
_FORGOTTEN = 64
"""Pipes kept open for what finished commands left running, so that it does not end by writing to them."""
_ARGUMENT = 120_000
"""Bytes of a script beyond which it does not fit into an argument."""
_DYING = 1.0
"""Seconds for what is killed to be gone."""
_TUNNELS = 256
"""Connections to elsewhere at once."""
_LOCAL = b"localhost,127.0.0.1,::1"
_FIONREAD = 0x541B
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_MARK = b"PALAESTRA_COMMAND"
"""Variable by which a process is known to belong to a command when its parents are gone."""
_IGNORED = [signal.SIGPIPE, signal.SIGXFSZ]
"""What Python ignores and programs should not."""
_OOM_COUNTERS = (b"/sys/fs/cgroup/memory.events", b"/sys/fs/cgroup/memory/memory.oom_control")


def raw(text: str) -> bytes:
    """Bytes of a header's text.

    Raises:
        ValueError: there is a NUL in it, or it is no text.
    """
    if "\0" in text:
        raise ValueError("there is a NUL in it")
    return text.encode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """A path as a header's text."""
    return path.decode("utf-8", "surrogateescape")


def weight(payload: bytes) -> int:
    """What a frame of data counts against the window."""
    return len(payload) + OVERHEAD


def parsed(text: bytes) -> Header:
    """A header.

    Raises:
        EOFError: it is none: the other side is not what it should be.
    """
    try:
        header: Header = json.loads(text)
        if isinstance(header["id"], int) and isinstance(header["op"], str):
            return header
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise EOFError


class Link:
    """Frames over two descriptors."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.waiting = 0
        """Bytes not yet written."""
        self._inward = bytearray()
        self._outward: deque[memoryview] = deque()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

    def receive(self) -> list[Frame]:
        """Frames that are there.

        Raises:
            EOFError: the other side is gone, or speaks something else.
        """
        try:
            data = os.read(self.reading, WINDOW)
        except BlockingIOError:
            return []
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        self._inward += data
        return self._frames()

    def _frames(self) -> list[Frame]:
        frames, at, view = [], 0, memoryview(self._inward)
        while len(view) - at >= FRAME.size:
            header, payload = FRAME.unpack_from(view, at)
            if max(header, payload) > LONGEST:
                raise EOFError
            begin = at + FRAME.size
            if len(view) - begin < header + payload:
                break
            at = begin + header + payload
            frames.append((parsed(bytes(view[begin : begin + header])), bytes(view[begin + header : at])))
        view.release()
        del self._inward[:at]
        return frames

    def send(self, header: Header, payload: bytes = b"") -> None:
        """Put a frame behind those that wait, and write what can be written."""
        text = json.dumps(header).encode()
        for part in (
            (FRAME.pack(len(text), len(payload)) + text + payload,)
            if len(payload) < 4096
            else (
                FRAME.pack(len(text), len(payload)) + text,
                payload,
            )
        ):
            self._outward.append(memoryview(part))
            self.waiting += len(part)
        self.flush()

    def flush(self) -> None:
        """Write what can be written.

        Raises:
            EOFError: the other side is gone.
        """
        try:
            while self._outward:
                part = self._outward[0]
                done = os.write(self.writing, part)
                self.waiting -= done
                if done == len(part):
                    self._outward.popleft()
                else:
                    self._outward[0] = part[done:]
        except BlockingIOError:
            pass
        except OSError as error:
            raise EOFError from error


class Stream:
    """One output of a command: its head, its tail, and how much there was."""

    def __init__(self, name: str, cap: int) -> None:
        self.name, self.total = name, 0
        self._first, self._last = cap // 2, cap - cap // 2
        self._head, self._tail = bytearray(), bytearray()

    def take(self, data: bytes) -> None:
        self.total += len(data)
        if len(self._head) < self._first:
            room = self._first - len(self._head)
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-self._last :] if self._last else b""
            if len(self._tail) > 2 * self._last + _READ:
                del self._tail[: len(self._tail) - self._last]

    def kept(self) -> tuple[bytes, bytes, int]:
        """Head, tail, and bytes between them."""
        head, tail = bytes(self._head), bytes(self._tail[-self._last :]) if self._last else b""
        dropped = self.total - len(head) - len(tail)
        return (head, tail, dropped) if dropped else (head + tail, b"", 0)


class Pipe:
    """The reading end of a pipe that processes of the sandbox write to."""

    def __init__(self, runner: Runner, on_data: Callable[[Pipe], None]) -> None:
        self._runner, self._on_data = runner, on_data
        self.fd, self.theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.theirs, True)
        self.open, self.watched = True, False
        self.left = -1
        """Bytes that are still to be read after the end of the program; -1: it has not ended."""
        self._grown = False

    def handle(self, on_data: Callable[[Pipe], None]) -> None:
        """Have something else done with what is there."""
        self._on_data = on_data

    def watch(self, wanted: bool) -> None:
        """Be told, or not, when there is something to read."""
        if wanted != self.watched and self.open:
            self.watched = wanted
            if wanted:
                self._runner.listen(self.fd, lambda: self._on_data(self))
            else:
                self._runner.ignore(self.fd)

    def read(self, most: int = _READ) -> bytes | None:
        """What is there; `None`: nothing now; empty: nothing will come any more, and the pipe is closed."""
        try:
            data = os.read(self.fd, most)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
        elif len(data) == _READ and not self._grown:
            self._grow()
        if self.left >= 0:
            self.left = max(0, self.left - len(data))
        return data

    def _grow(self) -> None:
        self._grown = True
        try:
            fcntl.fcntl(self.fd, 1031, 1 << 20)  # F_SETPIPE_SZ: fewer wake-ups for who prints much
        except OSError:
            pass

    def settle(self) -> None:
        """From now on only what is in it counts."""
        if self.open:
            buffer = bytearray(4)
            fcntl.ioctl(self.fd, _FIONREAD, buffer)
            self.left = int.from_bytes(buffer, sys.byteorder)

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        if self.open:
            self.watch(False)
            self.open = False
            os.close(self.fd)


class Running:
    """Output, limits and end of a command, whatever runs it."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self.runner, self.id = runner, header["id"]
        cap = int(header["output"])
        self.streams = {"stdout": Stream("stdout", cap), "stderr": Stream("stderr", cap)}
        self.flood = int(header["flood"])
        self.streaming, self.credit = bool(header.get("stream")), WINDOW
        self.began = time.monotonic()
        self.deadline: float | None = self.began + float(header["timeout"])
        self.ending = ""
        self.code = 0
        self.ooms = runner.ooms()

    @property
    def room(self) -> int:
        """Bytes of output that may be read now."""
        return min(_READ, self.credit - OVERHEAD) if self.streaming else _READ

    def take(self, name: str, data: bytes) -> bool:
        """Keep, and pass on, some output; false when that was the last drop."""
        self.streams[name].take(data)
        if self.streaming:
            self.credit -= weight(data)
            self.runner.link.send({"id": self.id, "kind": "data", "stream": name}, data)
        return sum(each.total for each in self.streams.values()) <= self.flood

    def ended(self, status: int) -> None:
        """Told of the program's end, as wait(2) tells it."""
        if os.WIFSIGNALED(status):
            self.code = self.code or 128 + os.WTERMSIG(status)
            self.ending = self.ending or "signal"
        else:
            self.code = self.code or os.WEXITSTATUS(status)
        if self.ending in ("", "signal") and self.code and self.runner.ooms() > self.ooms:
            self.ending = "memory"
        self.ending = self.ending or "exit"

    def report(self) -> None:
        """Answer the request."""
        parts = [self.streams[name].kept() for name in ("stdout", "stderr")]
        header = {
            "id": self.id,
            "kind": "done",
            "code": self.code,
            "ending": self.ending,
            "seconds": time.monotonic() - self.began,
            "parts": [[len(head), len(tail), dropped] for head, tail, dropped in parts],
        }
        payload = b"".join(head + tail for head, tail, _ in parts)
        for begin in range(0, max(0, len(payload) - CHUNK), CHUNK):
            self.runner.link.send({"id": self.id, "kind": "part"}, payload[begin : begin + CHUNK])
            header["rest"] = begin + CHUNK
        self.runner.link.send(header, payload[header.get("rest", 0) :])


class Task:
    """What a request began and has not finished."""

    deadline: float | None = None
    """When `expire` is called, by the monotonic clock."""

    def data(self, header: Header, payload: bytes) -> None:
        """More from the other side."""

    def finish(self) -> None:
        """There is no more from the other side."""

    def ack(self, count: int) -> None:
        """The other side has consumed some."""

    def pump(self) -> bool:
        """Send some; false when there is nothing to send now."""
        return False

    def expire(self) -> None:
        """The deadline has come."""

    def exited(self, status: int) -> None:
        """Its process has ended."""

    def cancel(self) -> None:
        """Stop, without an answer."""


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
        room = self._run.room if self._run else _READ
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


class Reading(Task):
    """A file, or a tree of files, on its way to the other side."""

    def __init__(
        self, runner: Runner, id: int, frames: Generator[Frame, None, None], after: Callable[[], None]
    ) -> None:
        self._runner, self._id, self._frames, self._after, self._credit = runner, id, frames, after, WINDOW

    def pump(self) -> bool:
        if self._credit <= 0 or self._runner.link.waiting > WINDOW:
            return False
        try:
            header, payload = next(self._frames)
        except StopIteration:
            self._runner.link.send({"id": self._id, "kind": "done"})
            self._end()
        except (OSError, ValueError) as error:
            self._runner.refuse(self._id, error)
            self._end()
        else:
            self._credit -= weight(payload)
            self._runner.link.send({**header, "id": self._id, "kind": "data"}, payload)
            return True
        return False

    def ack(self, count: int) -> None:
        self._credit += count

    def cancel(self) -> None:
        self._end()

    def _end(self) -> None:
        self._runner.drop(self._id)
        self._frames.close()
        self._after()


class Writing(Task):
    """A file that is written beside its place and put there when it is whole."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self._runner, self._id, self._mode = runner, header["id"], int(header["mode"]) & 0o7777
        self._path = runner.path(header["path"])
        folder, name = os.path.split(self._path)
        if not name or name in (b".", b"..") or (os.path.isdir(self._path) and not os.path.islink(self._path)):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._path)
        os.makedirs(folder, exist_ok=True)
        self._fresh = os.path.join(folder, b".palaestra-" + os.urandom(8).hex().encode())
        self._file = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def data(self, header: Header, payload: bytes) -> None:
        self._guard(lambda: write_all(self._file, payload))
        self._runner.link.send({"id": self._id, "kind": "ack", "bytes": weight(payload)})

    def finish(self) -> None:
        if self._guard(self._place):
            self._runner.drop(self._id)
            self._runner.link.send({"id": self._id, "kind": "done"})

    def _place(self) -> None:
        os.fchmod(self._file, self._mode)
        os.replace(self._fresh, self._path)
        os.close(self._file)

    def _guard(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except OSError as error:
            self.cancel()
            self._runner.drop(self._id)
            error.filename = self._path
            self._runner.refuse(self._id, error)
            return False
        return True

    def cancel(self) -> None:
        os.close(self._file)
        try:
            os.unlink(self._fresh)
        except OSError:
            pass


class Filing(Task):
    """A tree of files that comes from the other side."""

    def __init__(self, runner: Runner, header: Header) -> None:
        self._runner, self._id, self._base = runner, header["id"], runner.path(header["path"])
        self._file, self._current = -1, (b"", 0, 0)
        self._folders: list[tuple[bytes, int, int]] = []
        os.makedirs(os.path.dirname(self._base), exist_ok=True)

    def data(self, header: Header, payload: bytes) -> None:
        try:
            self._take(header["e"], payload)
        except (OSError, ValueError) as error:
            self._fail(error)
        else:
            self._runner.link.send({"id": self._id, "kind": "ack", "bytes": weight(payload)})

    def finish(self) -> None:
        try:
            self._end_file()
            for path, mode, when in reversed(self._folders):
                os.chmod(path, mode)
                os.utime(path, ns=(when, when))
        except OSError as error:
            return self._fail(error)
        self._runner.drop(self._id)
        self._runner.link.send({"id": self._id, "kind": "done"})

    def _fail(self, error: Exception) -> None:
        self.cancel()
        self._runner.drop(self._id)
        self._runner.refuse(self._id, error)

    def cancel(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take(self, entry: Header, payload: bytes) -> None:
        kind = entry["t"]
        if kind == "c":
            return self._write(int(entry["o"]), payload)
        self._end_file()
        path, mode, when = self._place(entry["p"]), int(entry.get("m", 0)) & 0o7777, int(entry.get("n", 0))
        if kind == "d":
            if not os.path.isdir(path) or os.path.islink(path):
                self._clear(path)
                os.mkdir(path, 0o700)
            else:
                os.chmod(path, 0o700)
            self._folders.append((path, mode, when))
            return
        self._clear(path)
        if kind == "f":
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._current = (path, mode, when)
            self._write(0, payload)
            os.ftruncate(self._file, int(entry["s"]))
        elif kind == "l":
            os.symlink(raw(entry["to"]), path)
            os.utime(path, ns=(when, when), follow_symlinks=False)
        elif kind == "h":
            os.link(self._place(entry["to"]), path, follow_symlinks=False)
        elif kind == "p":
            os.mkfifo(path, mode)

    def _write(self, offset: int, payload: bytes) -> None:
        if payload:
            os.lseek(self._file, offset, os.SEEK_SET)
            try:
                write_all(self._file, payload)
            except OSError as error:
                error.filename = self._current[0]
                raise

    def _place(self, name: str) -> bytes:
        parts = raw(name).split(b"/") if name else []
        if any(part in (b"", b".", b"..") for part in parts):
            raise ValueError("a path that leads out: " + name)
        return os.path.join(self._base, *parts)

    def _clear(self, path: bytes) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def _end_file(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            _, mode, when = self._current
            try:
                os.fchmod(file, mode)
                os.utime(file, ns=(when, when))
            finally:
                os.close(file)


class Packing(Task):
    """A tree of files on its way to the shelf: a file that this process and the other side share."""

    def __init__(
        self, runner: Runner, id: int, shelf: int, frames: Generator[Frame, None, None], after: Callable[[], None]
    ) -> None:
        self._runner, self._id, self._shelf, self._frames, self._after = runner, id, shelf, frames, after
        os.ftruncate(shelf, 0)
        os.lseek(shelf, 0, os.SEEK_SET)

    def pump(self) -> bool:
        try:
            header, payload = next(self._frames)
            text = json.dumps(header).encode()
            write_all(self._shelf, FRAME.pack(len(text), len(payload)) + text)
            write_all(self._shelf, payload)
        except StopIteration:
            self.cancel()
            self._runner.link.send({"id": self._id, "kind": "done"})
        except (OSError, ValueError) as error:
            self.cancel()
            self._runner.refuse(self._id, error)
        else:
            return True
        return False

    def cancel(self) -> None:
        self._runner.drop(self._id)
        self._frames.close()
        self._after()


class Unpacking(Filing):
    """A tree of files that comes from another's shelf."""

    def __init__(self, runner: Runner, header: Header, given: int) -> None:
        super().__init__(runner, header)
        self._frames = stored(given)

    def pump(self) -> bool:
        try:
            header, payload = next(self._frames)
            self._take(header["e"], payload)
        except StopIteration:
            self.finish()
            return False
        except (OSError, ValueError) as error:
            self._fail(error)
            return False
        return True


def stored(file: int) -> Iterator[Frame]:
    """Frames that were written to a file."""
    at = 0
    while True:
        start = os.pread(file, FRAME.size, at)
        if len(start) < FRAME.size:
            return
        header, payload = FRAME.unpack(start)
        at += FRAME.size + header + payload
        text = os.pread(file, header, at - header - payload)
        yield json.loads(text), os.pread(file, payload, at - payload)


def write_all(file: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def file_frames(path: bytes, limit: int) -> Generator[Frame, None, None]:
    """The content of a regular file, in parts."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        left = limit
        while True:
            data = os.read(file, min(CHUNK, left + 1)) if status.st_size <= limit else b" " * (left + 1)
            left -= len(data)
            if left < 0:
                raise OSError(errno.EFBIG, "holds more than %d bytes" % limit, path)
            if not data:
                return
            yield {}, data
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)


class Tree:
    """A file or a folder as entries, each followed by the data that is in it."""

    def __init__(self, root: bytes, limit: int, chunk: int) -> None:
        self._root, self._left, self._limit, self._chunk = root, limit, limit, chunk
        self._links: dict[tuple[int, int], str] = {}
        self._device = os.stat(root).st_dev

    def frames(self) -> Generator[Frame, None, None]:
        """Folders before what is in them.

        Raises:
            OSError: something cannot be read, or there are more bytes than the limit.
        """
        opened: list[tuple[bytes, int]] = []
        try:
            yield from self._walk(opened)
        finally:
            for path, mode in reversed(opened):
                os.chmod(path, mode)

    def _walk(self, opened: list[tuple[bytes, int]]) -> Iterator[Frame]:
        waiting = [(self._root, "")]
        while waiting:
            path, name = waiting.pop()
            status = os.lstat(path) if name else os.stat(path)
            entry = {"p": name, "m": stat.S_IMODE(status.st_mode), "n": status.st_mtime_ns}
            if stat.S_ISDIR(status.st_mode) and status.st_dev == self._device:
                yield self._counted({**entry, "t": "d"})
                if status.st_mode & 0o500 != 0o500 and status.st_uid == os.getuid():
                    os.chmod(path, 0o700)
                    opened.append((path, stat.S_IMODE(status.st_mode)))
                prefix = name + "/" if name else ""
                inside = sorted(os.listdir(path), reverse=True)
                waiting += [(os.path.join(path, each), prefix + shown(each)) for each in inside]
            elif stat.S_ISREG(status.st_mode) and status.st_dev == self._device:
                yield from self._file(path, entry, status)
            elif stat.S_ISLNK(status.st_mode):
                yield self._counted({**entry, "t": "l", "to": shown(os.readlink(path))})
            elif stat.S_ISFIFO(status.st_mode):
                yield self._counted({**entry, "t": "p"})

    def _counted(self, entry: Header) -> Frame:
        self._count(OVERHEAD)
        return {"e": entry}, b""

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OSError(errno.EFBIG, "holds more than %d bytes" % self._limit, self._root)

    def _file(self, path: bytes, entry: Header, status: os.stat_result) -> Iterator[Frame]:
        same = (status.st_dev, status.st_ino)
        if status.st_nlink > 1:
            if same in self._links:
                yield self._counted({**entry, "t": "h", "to": self._links[same]})
                return
            self._links[same] = entry["p"]
        entry.update({"t": "f", "s": status.st_size})
        file = readable(path, status)
        try:
            parts = holding(file, status.st_size, self._chunk)
            offset, data = next(parts, (0, b""))
            self._count(len(data) + OVERHEAD)
            yield {"e": entry}, b"" if offset else data
            if offset:
                yield {"e": {"t": "c", "o": offset}}, data
            for offset, data in parts:
                self._count(len(data))
                yield {"e": {"t": "c", "o": offset}}, data
        finally:
            os.close(file)


def readable(path: bytes, status: os.stat_result) -> int:
    """A file to read from, also one of ours that is not to be read."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except PermissionError:
        os.chmod(path, 0o600)
        try:
            return os.open(path, flags)
        finally:
            os.chmod(path, stat.S_IMODE(status.st_mode))


def holding(file: int, size: int, chunk: int = CHUNK) -> Iterator[tuple[int, bytes]]:
    """Offsets and data of a file without its holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
            end = min(size, os.lseek(file, at, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            end = size
        while at < end:
            data = os.pread(file, min(chunk, end - at), at)
            if not data:
                return
            yield at, data
            at += len(data)


class Tunnel(Task):
    """A connection to the proxy in the sandbox, carried on by the other side, which decides where it may go."""

    def __init__(self, runner: Runner, id: int, client: socket.socket) -> None:
        self._runner, self._id, self._client = runner, id, client
        self._head, self._credit = b"", WINDOW
        self._outward: deque[bytes] = deque()
        self._established, self._ending, self._closed = False, False, False
        client.setblocking(False)
        runner.listen(client.fileno(), self._asked)

    def _asked(self) -> None:
        """More of the request's head has come."""
        try:
            data = self._client.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._runner.ignore(self._client.fileno())
            self._ask()
        elif not data or len(self._head) > _READ:
            self._close()

    def _ask(self) -> None:
        line, _, rest = self._head.partition(b"\r\n")
        try:
            method, target, version = line.split(b" ")
            if method != b"CONNECT":
                scheme, _, target = target.partition(b"://")
                target, slash, path = target.partition(b"/")
                if scheme.lower() != b"http":
                    raise ValueError
                rest = b"Connection: close\r\n" + without(rest, (b"proxy-connection", b"connection"))
                self._head = b" ".join((method, slash + path or b"/", version)) + b"\r\n" + rest
                target = target if b":" in target else target + b":80"
            else:
                self._established = True
                self._head = self._head.partition(b"\r\n\r\n")[2]
            host, _, port = target.rpartition(b":")
            where = {"host": host.strip(b"[]").decode("ascii"), "port": int(port)}
        except ValueError:
            return self.refused("400 Bad Request", "this is a proxy")
        self._runner.link.send({**where, "id": self._id, "kind": "open"})

    def opened(self) -> None:
        """The other side has connected."""
        if self._established:
            self._say(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self._head:
            self._send(self._head)
        self._runner.listen(self._client.fileno(), self._readable)

    def refused(self, status: str, why: str) -> None:
        """It has not."""
        body = why.encode("utf-8", "replace") + b"\n"
        self._outward.clear()
        self._ending = True
        head = "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self._say(head.encode() + body)

    def _readable(self) -> None:
        if self._credit <= 0:
            return self._runner.ignore(self._client.fileno())
        try:
            data = self._client.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._send(data)
        else:
            self._runner.ignore(self._client.fileno())
            self._runner.link.send({"id": self._id, "kind": "end"})

    def _send(self, data: bytes) -> None:
        self._credit -= weight(data)
        self._runner.link.send({"id": self._id, "kind": "data"}, data)

    def ack(self, count: int) -> None:
        self._credit += count
        if not self._closed:
            self._runner.listen(self._client.fileno(), self._readable)

    def data(self, header: Header, payload: bytes) -> None:
        self._say(payload)
        self._runner.link.send({"id": self._id, "kind": "ack", "bytes": weight(payload)})

    def finish(self) -> None:
        self._ending = True
        self._say(b"")

    def pump(self) -> bool:
        if self._outward and not self._closed:
            self._say(b"")
        return False

    def _say(self, data: bytes) -> None:
        """Write to the client, which is waited for without holding anybody else up."""
        if data:
            self._outward.append(data)
        try:
            while self._outward:
                done = self._client.send(self._outward[0])
                part = self._outward.popleft()
                if done < len(part):
                    self._outward.appendleft(part[done:])
        except BlockingIOError:
            self.deadline = time.monotonic() + 0.02
            return
        except OSError:
            return self._close()
        self.deadline = None
        if self._ending:
            self._close()

    def expire(self) -> None:
        self._say(b"")

    def _close(self) -> None:
        if not self._closed:
            self._runner.link.send({"id": self._id, "kind": "closed"})
            self._runner.drop(self._id)
            self.cancel()

    def cancel(self) -> None:
        self._closed = True
        if self._client.fileno() >= 0:
            self._runner.ignore(self._client.fileno())
            self._client.close()


def without(head: bytes, names: tuple[bytes, ...]) -> bytes:
    """Lines of a request's head but those of some names."""
    lines, _, body = head.partition(b"\r\n\r\n")
    kept = [line for line in lines.split(b"\r\n") if line.partition(b":")[0].strip().lower() not in names]
    return b"\r\n".join(kept) + b"\r\n\r\n" + body


class Processes:
    """What runs in the sandbox, and how it is ended or held still."""

    def __init__(self, mains: dict[int, Task]) -> None:
        self._mains, self._me = mains, os.getpid()
        self._first = self._me == 1

    def end(self, main: int, command: int) -> set[tuple[int, int]]:
        """Kill a command's program and everything that came of it, however far it went; gives what was killed."""
        killed: set[tuple[int, int]] = set()
        for _ in range(20):
            held: set[tuple[int, int]] = set()
            while fresh := self._belonging(main, command) - held - killed:
                for pid, _ in fresh:
                    send(pid, signal.SIGSTOP)
                held |= fresh
            for pid, _ in held:
                send(pid, signal.SIGKILL)
            killed |= held
            if not held:
                return killed
        if self._first:
            send(-1, signal.SIGKILL)
        return killed

    def hold(self) -> list[int]:
        """Stop everything; what was stopped by this, for `release`."""
        held: list[int] = []
        while True:
            table = self._table()
            below = self._below(table, {pid for pid, each in table.items() if each[1] == self._me or self._first})
            fresh = [pid for pid in below if pid not in (self._me, *held) and table[pid][0] not in b"TtZX"]
            if not fresh:
                return held
            for pid in fresh:
                send(pid, signal.SIGSTOP)
            held += fresh

    @staticmethod
    def release(held: list[int]) -> None:
        """Let go on what `hold` stopped."""
        for pid in held:
            send(pid, signal.SIGCONT)

    def _belonging(self, main: int, command: int) -> set[tuple[int, int]]:
        table, roots = self._table(), set()
        for pid, (_, parent, session, _) in table.items():
            if main and main in (pid, session):
                roots.add(pid)
            elif parent == self._me and pid not in self._mains:
                owner = owner_of(pid)
                # Who hides whose it is goes with the first that is ended.
                if owner == command or (owner is None and self._first):
                    roots.add(pid)
        found = self._below(table, roots)
        return {(pid, table[pid][3]) for pid in found if table[pid][0] not in b"ZX" and pid != self._me}

    @staticmethod
    def _below(table: dict[int, tuple[int, int, int, int]], roots: set[int]) -> set[int]:
        children: dict[int, list[int]] = {}
        for pid, each in table.items():
            children.setdefault(each[1], []).append(pid)
        found, waiting = set(), list(roots)
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += children.get(pid, ())
        return found

    @staticmethod
    def _table() -> dict[int, tuple[int, int, int, int]]:
        """Process -> its state, parent, session and time of start."""
        table = {}
        for name in os.listdir(b"/proc"):
            words = status_of(int(name)) if name.isdigit() else []
            if words:
                table[int(name)] = (words[0][0], int(words[1]), int(words[3]), int(words[19]))
        return table


def head_of(path: bytes, most: int = 4096) -> bytes:
    """The beginning of a file, nothing where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(file, most)
    except OSError:
        return b""
    finally:
        os.close(file)


def status_of(pid: int) -> list[bytes]:
    """What the kernel tells of a process, from its state on; nothing where there is none."""
    text = head_of(b"/proc/%d/stat" % pid)
    words = text[text.rfind(b")") + 2 :].split()
    return words if len(words) > 19 else []


def started_at(pid: int) -> int:
    """When a process began, which tells it from a later one of its number; -1 where there is none."""
    words = status_of(pid)
    return int(words[19]) if words else -1


def owner_of(pid: int) -> int | None:
    """The command that a process belongs to by its environment."""
    for each in head_of(b"/proc/%d/environ" % pid, 1 << 20).split(b"\0"):
        name, _, value = each.partition(b"=")
        if name == _MARK and value.isdigit():
            return int(value)
    return None


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


class Runner:
    """The loop, and what it was told about the sandbox."""

    def __init__(self, reading: int, writing: int, shelves: dict[str, int]) -> None:
        self.link = Link(reading, writing)
        self._shelves = shelves
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
        self._held: list[int] = []
        self._tunnel = 0
        self._end = float("inf")
        self._counter = next((path for path in _OOM_COUNTERS if b"oom_kill" in head_of(path)), b"")
        self._writing = False
        self._wake_up()
        self.listen(reading, self._receive)

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
        return {**self._environ, **{raw(name): raw(value) for name, value in more.items()}, _MARK: b"%d" % id}

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

    # Requests.

    def _receive(self) -> None:
        for header, payload in self.link.receive():
            id, op = header["id"], header["op"]
            task = self._tasks.get(id)
            if op in ("data", "end", "ack", "cancel", "opened", "refuse"):
                if task:
                    self._go_on(task, op, header, payload)
                continue
            try:
                getattr(self, "_do_" + op)(header, payload)
            except (OSError, ValueError) as error:
                self.refuse(id, error)
            except (AttributeError, LookupError, TypeError) as error:
                self.refuse(id, ValueError("no request that is known here: %r" % error))

    def _go_on(self, task: Task, op: str, header: Header, payload: bytes) -> None:
        if op == "data":
            task.data(header, payload)
        elif op == "end":
            task.finish()
        elif op == "ack":
            task.ack(int(header["bytes"]))
        elif isinstance(task, Tunnel) and op == "opened":
            task.opened()
        elif isinstance(task, Tunnel) and op == "refuse":
            task.refused("403 Forbidden", header["text"])
        else:
            self.drop(header["id"])
            task.cancel()

    def _do_configure(self, header: Header, payload: bytes) -> None:
        for name, value in header["rlimits"].items():
            number = getattr(resource, "RLIMIT_" + name)
            resource.setrlimit(number, (value, value))
        self._memory = int(header.get("memory") or 0)
        if self._memory:
            most = self._memory + (1 << 28)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        self._work = raw(header["workdir"])
        self._environ = dict(os.environb)
        self._environ.setdefault(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        self._environ.update({b"HOME": self._work, b"LANG": b"C.UTF-8", b"PWD": self._work})
        self._environ.update({raw(name): raw(value) for name, value in header["env"].items()})
        if header.get("network"):
            self._environ.update(self._proxy())
        for name in (b"bash", b"sh"):
            try:
                self.shell = found(name, self._environ[b"PATH"] + b":/usr/bin:/bin")
                break
            except OSError:
                continue
        os.chdir(self._work)
        if not os.access(self._work, os.W_OK):
            raise PermissionError(errno.EACCES, "cannot be written to by user %d" % os.getuid(), self._work)
        self._do_renew(header, payload)

    def _proxy(self) -> Environ:
        """Begin to listen for connections to elsewhere; variables that say where."""
        import socket

        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        listening.setblocking(False)

        def accept() -> None:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            tunnels = [id for id in self._tasks if id < 0]
            if len(tunnels) >= _TUNNELS:
                return client.close()
            self._tunnel -= 1
            self._tasks[self._tunnel] = Tunnel(self, self._tunnel, client)

        self.listen(listening.fileno(), accept)
        address = b"http://127.0.0.1:%d" % listening.getsockname()[1]
        names = dict.fromkeys((b"http_proxy", b"https_proxy", b"HTTP_PROXY", b"HTTPS_PROXY", b"ALL_PROXY"), address)
        return {**names, b"no_proxy": _LOCAL, b"NO_PROXY": _LOCAL}

    def _do_renew(self, header: Header, payload: bytes) -> None:
        self._end = time.monotonic() + float(header["lifetime"])
        self.link.send({"id": header["id"], "kind": "done", "pid": os.getpid(), "shell": shown(self.shell)})

    def _do_ping(self, header: Header, payload: bytes) -> None:
        self.link.send({"id": header["id"], "kind": "done"})

    def _do_exec(self, header: Header, payload: bytes) -> None:
        try:
            task = Program(self, header, payload)
        except OSError as error:
            return self._not_started(header, error)
        if task.pid in self.children:
            self._tasks[header["id"]] = task

    def _not_started(self, header: Header, error: OSError) -> None:
        """Want of processes, memory or room for arguments is a result; a wrong path is an error."""
        if error.errno not in (errno.EAGAIN, errno.ENOMEM, errno.E2BIG, errno.EMFILE):
            raise error
        run = Running(self, {**header, "stream": False})
        run.code, run.ending = 126, "exit"
        run.streams["stderr"].take(b"cannot start it: %s\n" % (error.strerror or "").encode())
        run.report()

    def _do_shell(self, header: Header, payload: bytes) -> None:
        self._shells[header["id"]] = Shell(self, header)
        self.link.send({"id": header["id"], "kind": "done"})

    def _do_run(self, header: Header, payload: bytes) -> None:
        shell = self._shells.get(header["shell"])
        if shell is None:
            raise ValueError("the session is closed")
        raw(payload.decode("utf-8", "surrogateescape"))
        self._tasks[header["id"]] = Script(shell)
        try:
            shell.run(header, payload)
        except OSError as error:
            self.drop(header["id"])
            self._not_started(header, error)

    def _do_leave(self, header: Header, payload: bytes) -> None:
        shell = self._shells.pop(header["shell"], None)
        if shell:
            shell.leave()
        self.link.send({"id": header["id"], "kind": "done"})

    def _do_read(self, header: Header, payload: bytes) -> None:
        frames = file_frames(self.path(header["path"]), int(header["limit"]))
        self._tasks[header["id"]] = Reading(self, header["id"], frames, lambda: None)

    def _do_write(self, header: Header, payload: bytes) -> None:
        task = self._tasks[header["id"]] = Writing(self, header)
        if payload:
            task.data(header, payload)
        if header.get("whole") and header["id"] in self._tasks:
            task.finish()

    def _do_put(self, header: Header, payload: bytes) -> None:
        given = self._shelves.get("given") if header.get("shelf") else None
        self._tasks[header["id"]] = Filing(self, header) if given is None else Unpacking(self, header, given)

    def _do_get(self, header: Header, payload: bytes) -> None:
        shelf = self._shelves.get("shelf") if header.get("shelf") else None
        tree = Tree(self.path(header["path"]), int(header["limit"]), CHUNK if shelf is None else LONGEST)
        held = self._processes.hold() if header.get("still") else []

        def after() -> None:
            self._processes.release(held)

        if shelf is None:
            self._tasks[header["id"]] = Reading(self, header["id"], tree.frames(), after)
        else:
            self._tasks[header["id"]] = Packing(self, header["id"], shelf, tree.frames(), after)

    def _do_hold(self, header: Header, payload: bytes) -> None:
        self._held += self._processes.hold()
        self.link.send({"id": header["id"], "kind": "done"})

    def _do_release(self, header: Header, payload: bytes) -> None:
        held, self._held = self._held, []
        self._processes.release(held)
        self.link.send({"id": header["id"], "kind": "done"})

    def _do_close(self, header: Header, payload: bytes) -> None:
        raise EOFError


def found(name: bytes, path: bytes) -> bytes:
    """A program.

    Raises:
        OSError: it is not there, or cannot be run.
    """
    if b"/" in name:
        return name
    for folder in path.split(b":"):
        each = os.path.join(folder or b".", name)
        if os.access(each, os.X_OK) and os.path.isfile(each):
            return each
    raise FileNotFoundError(errno.ENOENT, "there is no such program", name)


def become(user: int, group: int, folders: list[str]) -> None:
    """Give up being root, and the folders with it."""
    import ctypes

    for folder in folders:
        os.chown(folder, user, group)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # What is inheritable has no effect without privileges, but nobody shall wonder: capset(2), version 3, nothing.
    ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))


def hide() -> None:
    """Keep processes of the same user out of this one's memory and descriptors; adopt orphans."""
    import ctypes

    library = ctypes.CDLL(None)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError("prctl refuses")
    if os.getpid() != 1:
        library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    """Serve whoever holds stdin; the first argument says who to become, and which descriptors are shelves."""
    told = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    if "user" in told:
        user, group = told["user"]
        become(user, group, told["folders"])
    hide()
    given = {"reading": 0, "writing": 1, **told.get("shelves", {})}
    ours = {name: fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _OURS) for name, each in given.items()}
    os.closerange(3, _OURS)  # also what whoever started this process forgot to close
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, *range(3, 10)):  # so that no pipe has a number that a command's descriptor gets
        if number != null:
            os.dup2(null, number, inheritable=number < 3)
    os.set_inheritable(null, null < 3)
    runner = Runner(ours.pop("reading"), ours.pop("writing"), ours)
    runner.link.send({"id": 0, "kind": "hello", "version": 1, "python": sys.version.split()[0]})
    runner.serve()


if __name__ == "__main__":
    main()
