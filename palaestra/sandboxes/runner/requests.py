"""What the runner is asked for, each kind of request a method."""

from __future__ import annotations

import errno
import os
import resource
import time

from palaestra.sandboxes.runner.files import Reading, Writing, file_frames
from palaestra.sandboxes.runner.filing import Filing
from palaestra.sandboxes.runner.frames import CHUNK, LONGEST, raw, shown
from palaestra.sandboxes.runner.loop import Runner
from palaestra.sandboxes.runner.processes import found
from palaestra.sandboxes.runner.program import Program
from palaestra.sandboxes.runner.shelf import Packing, Unpacking
from palaestra.sandboxes.runner.shell import Script, Shell
from palaestra.sandboxes.runner.task import Running, Task
from palaestra.sandboxes.runner.trees import Tree
from palaestra.sandboxes.runner.tunnel import Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Environ

_TUNNELS = 256
"""Connections to elsewhere at once."""
_LOCAL = b"localhost,127.0.0.1,::1"


class Requests(Runner):
    """A runner that does what it is asked for."""

    def __init__(self, reading: int, writing: int, shelves: dict[str, int]) -> None:
        super().__init__(reading, writing)
        self._shelves = shelves
        self._held: list[int] = []
        self._tunnel = 0
        self.listen(reading, self._receive)

    def _receive(self) -> None:
        for header, payload in self.link.receive():
            id, op = header["id"], header["op"]
            task = self._tasks.get(id)
            if op in ("data", "end", "ack", "cancel", "opened", "refuse"):
                if task:
                    self._go_on(task, op, header, payload)
                if op == "cancel":
                    self.link.send({"id": id, "kind": "cancelled"})
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
