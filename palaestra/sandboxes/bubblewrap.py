"""Sandboxes of namespaces alone, for machines without an engine: bubblewrap starts them, and they leave nothing behind.

What is seen of this machine are its programs, read-only; or a root file system of the user's. The work folder and /tmp
are in memory and have a size. Nothing outlives the process that holds them, not even a kill: all is namespaces and
pipes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError, SandboxImageError, SandboxPathError
from palaestra.sandboxes.attached import AttachedSandbox
from palaestra.sandboxes.core import Backend, Sandbox, Snapshot
from palaestra.sandboxes.governor import Governor
from palaestra.sandboxes.leases import Lease
from palaestra.sandboxes.link import Link, StreamWire
from palaestra.sandboxes.namespaces import ended, rlimits, started
from palaestra.sandboxes.network import check_network
from palaestra.sandboxes.reaper import reap_soon
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.sandboxes.waiting import all_or_none, settled

_START = 30.0
"""Seconds for a sandbox to start."""


class BubblewrapBackend(Backend):
    """Starts sandboxes with `bwrap`.

    Raises:
        SandboxDaemonError: from `start`: bubblewrap is not installed, or may not make namespaces.
        ConfigError: from `start`: the spec asks for a writable root, or for root as its user.
    """

    name = "bubblewrap"

    def __init__(self) -> None:
        self._open: set[_BubblewrapSandbox | _BubblewrapSnapshot] = set()
        self._lease: Lease | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._cores = itertools.count(secrets.randbelow(1024))
        self.governor = Governor()
        """How many are started at once: as many as this machine still starts quickly."""

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """See `Backend`."""
        return await self.begin(spec)

    async def begin(self, spec: SandboxSpec, files: IO[bytes] | None = None) -> _BubblewrapSandbox:
        """A sandbox whose work folder has the files of a snapshot, or else those of its image."""
        _check(spec)
        if self._lease is None:
            self._lease = Lease.open("bubblewrap")
            self._reaping = reap_soon()
        async with self.governor.turn("start"):
            started = await _launch(spec, next(self._cores), self, self._lease, files)
        self._open.add(started)
        try:
            if files:
                await started.unpack(spec.workdir)
            elif spec.image:
                await _fill(started)
        except BaseException:
            await settled(started.close())
            raise
        return started

    def forget(self, closed: _BubblewrapSandbox | _BubblewrapSnapshot) -> None:
        """It is closed."""
        self._open.discard(closed)

    def keep(self, made: _BubblewrapSnapshot) -> None:
        """Close it with the rest."""
        self._open.add(made)

    async def close(self) -> None:
        """See `Backend`."""
        closing = [each.close() if isinstance(each, Sandbox) else each.delete() for each in self._open]
        await asyncio.gather(*closing)
        if self._reaping is not None:
            await self._reaping
        if self._lease is not None:
            self._lease.close()
            self._lease = None


def _check(spec: SandboxSpec) -> None:
    check_network(spec.network)
    if spec.root == "writable":
        raise ConfigError(
            "bubblewrap cannot give a sandbox a root that can be written to; use docker, or root=read-only"
        )
    if 0 in spec.user:
        raise ConfigError("a sandbox of bubblewrap's runs as a user and group other than 0")
    if not spec.workdir.startswith("/") or os.path.normpath(spec.workdir) in ("/", "/tmp", "/proc", "/dev", "/usr"):
        raise ConfigError(f"workdir is an absolute path that is not one of the system's, not {spec.workdir!r}")
    if not spec.image and Path(sys.base_prefix).is_relative_to(spec.workdir):
        raise ConfigError(
            f"the work folder {spec.workdir} lies over {sys.base_prefix}, this interpreter: choose another"
        )
    if spec.image and not Path(spec.image).is_dir():
        raise SandboxImageError(f"there is no root file system {spec.image}: bubblewrap takes the path of a folder")
    if shutil.which("bwrap") is None:
        raise SandboxDaemonError("bubblewrap is not installed (on Debian: apt-get install bubblewrap)")


class _BubblewrapSandbox(AttachedSandbox):
    """A sandbox, and the process that holds its namespaces."""

    def __init__(
        self,
        id: str,
        spec: SandboxSpec,
        link: Link,
        process: subprocess.Popen[bytes],
        shelf: IO[bytes],
        backend: BubblewrapBackend,
    ) -> None:
        super().__init__(id, spec, link)
        self._process, self._shelf, self._backend = process, shelf, backend
        self._packing = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    async def snapshot(self) -> Snapshot:
        """See `Sandbox`."""
        async with self._packing:
            await self.pack(self.spec.workdir)
            made = _BubblewrapSnapshot(self.spec, self._backend)
            try:
                await asyncio.to_thread(_copy, self._shelf, made.file)
                self._shelf.truncate(0)
            except BaseException:
                await made.delete()
                raise
        return made

    async def fork(self, n: int = 1) -> list[Sandbox]:
        """See `Sandbox`."""
        async with self._packing:
            await self.pack(self.spec.workdir)
            try:
                return await all_or_none([self._backend.begin(self.spec, self._shelf) for _ in range(n)])
            finally:
                self._shelf.truncate(0)

    async def close(self) -> None:
        """See `Sandbox`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._backend.forget(self)
        await self.link.close()
        await ended(self._process)
        self._shelf.close()


class _BubblewrapSnapshot(Snapshot):
    """Files as the runner told them, in a file without a name, so that there is nothing to leave behind."""

    def __init__(self, spec: SandboxSpec, backend: BubblewrapBackend) -> None:
        self.id, self.spec, self._backend = f"bubblewrap-{secrets.token_hex(6)}", spec, backend
        self.file = _unnamed()
        backend.keep(self)

    async def start(self) -> Sandbox:
        """See `Snapshot`."""
        if self.file.closed:
            raise SandboxError("the snapshot is deleted")
        return await self._backend.begin(self.spec, self.file)

    async def delete(self) -> None:
        """See `Snapshot`."""
        self._backend.forget(self)
        self.file.close()


async def _fill(sandbox: AttachedSandbox) -> None:
    """Copy what the image has in its work folder."""
    inside = Path(sandbox.spec.image) / sandbox.spec.workdir.lstrip("/")
    if inside.is_dir() and not inside.is_symlink():
        await sandbox.upload(inside, sandbox.spec.workdir)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    size = os.fstat(source.fileno()).st_size
    at = 0
    while at < size:
        at += os.sendfile(target.fileno(), source.fileno(), at, size - at)


async def _launch(
    spec: SandboxSpec, turn: int, backend: BubblewrapBackend, lease: Lease, files: IO[bytes] | None
) -> _BubblewrapSandbox:
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as errors, ExitStack() as stack:
        stack.callback(ours.close)
        shelf = stack.enter_context(_unnamed())
        with theirs, ExitStack() as given:
            shelves = {"shelf": shelf.fileno()}
            if files:
                shelves["given"] = given.enter_context(open(f"/proc/self/fd/{files.fileno()}", "rb")).fileno()
            id = f"bubblewrap-{secrets.token_hex(6)}"
            marked = lease.environment(id)
            beginning = asyncio.create_task(started(spec, turn, theirs.fileno(), errors, shelves, marked))
            try:
                process = await asyncio.shield(beginning)
            except asyncio.CancelledError:  # what is half made would stay behind
                ours.close()
                await settled(_abandoned(beginning))
                raise
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 22)
        except BaseException:
            ours.close()
            await settled(ended(process))
            raise
        stack.pop_all()
        made = _BubblewrapSandbox(id, spec, Link(StreamWire(reader, writer)), process, shelf, backend)
        try:
            async with asyncio.timeout(_START):
                await made.configure(rlimits(spec), spec.limits.memory)
        except (SandboxError, TimeoutError) as error:
            await made.close()
            raise _not_started(spec, error, errors) from error
        except BaseException:
            await settled(made.close())
            raise
        return made


async def _abandoned(beginning: asyncio.Task[subprocess.Popen[bytes]]) -> None:
    await ended(await beginning)


def _unnamed() -> IO[bytes]:
    """A file that goes with whoever holds it."""
    return tempfile.TemporaryFile(prefix="palaestra-", buffering=0)


def _not_started(spec: SandboxSpec, error: Exception, errors: IO[bytes]) -> Exception:
    """What to tell of a sandbox that does not start."""
    errors.seek(0)
    said = errors.read(4000).decode("utf-8", "replace").strip()
    if isinstance(error, SandboxPathError):
        return SandboxImageError(f"the work folder: {error}")
    if spec.image and "execvp" in said:
        return SandboxImageError(f"{spec.image} has no python3, which runs in every sandbox: install it there")
    if spec.image and "Error" in said:
        return SandboxImageError(f"the python3 of {spec.image} does not run: {said.splitlines()[-1]}")
    if "bwrap:" in said:
        return SandboxDaemonError(
            f"bubblewrap refuses: {said}; it needs user namespaces, which this machine may forbid"
        )
    return SandboxError(f"a sandbox does not start: {said or str(error) or f'nothing came in {_START:g} s'}")
