"""What requests begin: tasks, and the part of a command that all kinds of commands share."""

from __future__ import annotations

import os
import time

from palaestra.sandboxes.runner.frames import CHUNK, OVERHEAD, WINDOW, weight
from palaestra.sandboxes.runner.pipes import READ, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Runner


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
        return min(READ, self.credit - OVERHEAD) if self.streaming else READ

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
