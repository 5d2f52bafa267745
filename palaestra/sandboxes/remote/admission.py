"""What clients of a server may ask for, and how much of it: places for all of them, memory for each."""

from __future__ import annotations

import asyncio
import fnmatch
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msgspec.structs import asdict, replace

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError, SandboxPathError
from palaestra.sandboxes.desk import Rules
from palaestra.sandboxes.requests import Execute, Read, Request, Start, Write
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

CLIENT_BYTES = 256 * MIB
"""Memory for the files that one client reads and writes at once."""
OUTPUT_BYTES = 16 * MIB
"""Most bytes that may be kept of one stream of a command."""


def machine() -> Limits:
    """What one sandbox may have by default: this machine, a disk's worth of files, and a day."""
    return Limits(
        cpus=float(os.cpu_count() or 1),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        pids=32_768,
        disk=64 * 1024 * MIB,
        seconds=86_400.0,
        output=OUTPUT_BYTES,
        flood=64 * 1024 * MIB,
        lifetime=86_400.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What clients may ask for."""

    sandboxes: int = 64
    """At once, of all clients together; and as many snapshots."""
    limits: Limits = field(default_factory=machine)
    """The most that a sandbox may have of each."""
    images: tuple[str, ...] = ("*",)
    """Patterns, as of file names, of images that may be asked for; the back end's own, by no name, always may."""
    network: bool = False
    """Whether a sandbox may have hosts that it reaches. They are reached from here, with what this machine reaches."""
    file_bytes: int = 64 * MIB
    """Most bytes of a file that is read or written whole, and of standard input."""


class Admission(Rules):
    """Shares one server's places among its clients."""

    def __init__(self, allowed: Allowed) -> None:
        self.allowed = allowed
        self.sandboxes = self.snapshots = 0
        """Places that are taken."""

    def take(self, sandboxes: int = 0, snapshots: int = 0) -> None:
        """Take places; see `Rules.take`."""
        most = self.allowed.sandboxes
        for wanted, taken, name in ((sandboxes, self.sandboxes, "sandboxes"), (snapshots, self.snapshots, "snapshots")):
            if wanted > 0 and taken + wanted > most:
                raise SandboxDaemonError(
                    f"the server has no place for {wanted} more: {taken} of {most} {name} are taken; "
                    f"close some, or raise palaestra sandboxes serve --max-sandboxes"
                )
        self.sandboxes += sandboxes
        self.snapshots += snapshots

    def bounded(self, request: Request) -> Request:
        """Refuse what is too much in itself; see `Rules.bounded`."""
        most = self.allowed.file_bytes
        match request:
            case Start(spec):
                self._check(spec)
            case Execute(_, command, size):
                if size > most:
                    raise SandboxError(f"standard input of {size:,} bytes is over the server's {most:,}; upload a file")
                if (command.output or 0) > OUTPUT_BYTES:
                    raise SandboxError(f"the server keeps at most {OUTPUT_BYTES:,} bytes of a stream; ask for less")
            case Read():
                return replace(request, limit=min(request.limit, most))
            case Write(_, path, _, size):
                if size > most:
                    raise SandboxPathError(f"{path}: {size:,} bytes are over the server's {most:,}; upload it")
        return request

    def _check(self, spec: SandboxSpec) -> None:
        asked, most = asdict(spec.limits), asdict(self.allowed.limits)
        for name, value in asked.items():
            if not value <= most[name]:  # written so that what is no number is refused
                raise ConfigError(f"limits.{name}={value:g} is more than the server allows: {most[name]:g}")
        if spec.image and not any(fnmatch.fnmatchcase(spec.image, pattern) for pattern in self.allowed.images):
            raise ConfigError(f"the server offers no image {spec.image!r}; it has {', '.join(self.allowed.images)}")
        if spec.network and not self.allowed.network:
            raise ConfigError("the server lets no sandbox have a network; start it with --allow-network")


class Budget:
    """Bytes that are shared in the order in which they are asked for."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes, or all there are if it is more."""
        if not size:
            yield
            return
        size = min(size, self._size)
        await self._take(size)
        try:
            yield
        finally:
            self._left += size
            self._serve()

    async def _take(self, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue = deque(entry for entry in self._queue if entry[1] is not turn)
            else:
                self._left += size
            self._serve()
            raise

    def _serve(self) -> None:
        while self._queue and self._queue[0][0] <= self._left:
            size, turn = self._queue.popleft()
            if not turn.done():
                self._left -= size
                turn.set_result(None)
