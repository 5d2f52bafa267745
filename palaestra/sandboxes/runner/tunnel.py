"""Connections to elsewhere, by way of the other side."""

from __future__ import annotations

import time
from collections import deque

from palaestra.sandboxes.runner.frames import WINDOW, weight
from palaestra.sandboxes.runner.pipes import READ
from palaestra.sandboxes.runner.task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from palaestra.sandboxes.runner.frames import Header
    from palaestra.sandboxes.runner.loop import Runner


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
            data = self._client.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._runner.ignore(self._client.fileno())
            self._ask()
        elif not data or len(self._head) > READ:
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
            data = self._client.recv(READ)
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
