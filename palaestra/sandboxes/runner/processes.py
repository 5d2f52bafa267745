"""Processes of the sandbox: which belong to whom, and how they are ended or held still."""

from __future__ import annotations

import errno
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.task import Task

MARK = b"PALAESTRA_COMMAND"
"""Variable by which a process is known to belong to a command when its parents are gone."""


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
        if name == MARK and value.isdigit():
            return int(value)
    return None


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


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
