"""The contract of sandboxes: what every back end offers, whatever it runs them on.

All paths inside a sandbox are POSIX, relative ones to its work folder. Methods of one sandbox may be called at the same
time. Cancelling a call stops what it began; the sandbox lives on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from palaestra.sandboxes.commands import Chunk, Exec, ExecResult
from palaestra.sandboxes.spec import SandboxSpec

OnOutput = Callable[[Chunk], Awaitable[None] | None]
"""Told of output. What it returns to be awaited holds the command up, as a slow reader of a pipe does."""


class Session(ABC):
    """A shell that lives over several commands: folder, variables and background jobs stay."""

    @abstractmethod
    async def run(self, script: str, timeout: float | None = None) -> ExecResult:
        """Run a script in it. After a time-out the shell begins anew in the same folder, without its variables.

        Raises:
            SandboxError: the sandbox is closed or lost.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the shell and its background jobs. May be called more than once."""


class Snapshot(ABC):
    """The files of a sandbox at one moment: its work folder, and its root where that is writable. No processes."""

    id: str
    """What `palaestra sandboxes ps` shows."""
    spec: SandboxSpec
    """Of the sandbox that it was taken from, and of those that it starts."""

    @abstractmethod
    async def start(self) -> Sandbox:
        """A new sandbox with these files.

        Raises:
            SandboxError: it cannot be started, or the snapshot was deleted.
        """

    @abstractmethod
    async def delete(self) -> None:
        """Free what it takes. May be called more than once."""


class Sandbox(ABC):
    """One running sandbox. `async with` closes it."""

    id: str
    """What `palaestra sandboxes ps` shows."""
    spec: SandboxSpec
    """What it was started as."""

    @abstractmethod
    async def exec(self, command: Exec, on_output: OnOutput | None = None) -> ExecResult:
        """Run a command to its end.

        Args:
            command: what to run.
            on_output: called with output as it comes, all of it up to the flood limit, in the order of each stream.
                Where it returns something to await, no more is read from the command until that is done.

        Raises:
            SandboxPathError: `cwd` is not a folder there, or the program does not exist.
            SandboxError: the sandbox is closed or lost.
        """

    @abstractmethod
    async def session(self) -> Session:
        """Begin a shell that stays.

        Raises:
            SandboxError: as `exec`.
        """

    @abstractmethod
    async def read_file(self, path: str, limit: int = 16 * 1024 * 1024) -> bytes:
        """The content of a regular file.

        Raises:
            SandboxPathError: it does not exist, is no regular file, cannot be read, or holds more than `limit` bytes.
            SandboxError: as `exec`.
        """

    @abstractmethod
    async def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Put a file there whole or not at all, with the folders above it. A link at `path` is replaced, not followed.

        Raises:
            SandboxPathError: it cannot be written, or the disk is full.
            SandboxError: as `exec`.
        """

    @abstractmethod
    async def upload(self, source: Path, target: str) -> None:
        """Copy a file or a folder from this machine, with the modes and links in it, over what is at `target`.

        Raises:
            SandboxPathError: `source` does not exist, or it cannot be written there.
            SandboxError: as `exec`.
        """

    @abstractmethod
    async def download(self, source: str, target: Path, limit: int = 1024 * 1024 * 1024) -> None:
        """Copy a file or a folder to this machine, to `target`, which must not exist.

        What comes is untrusted: links that point out of `target`, devices and set-uid bits are left behind.

        Raises:
            SandboxPathError: `source` does not exist, `target` does, or there are more than `limit` bytes.
            SandboxError: as `exec`.
        """

    async def renew(self) -> None:
        """Begin its lifetime anew, where its back end can; returns when the sandbox has answered.

        Raises:
            SandboxError: as `exec`.
        """
        await self.exec(Exec(argv=("true",)))

    @abstractmethod
    async def snapshot(self) -> Snapshot:
        """Keep its files as they are now; what runs is held still meanwhile.

        Raises:
            SandboxError: as `exec`.
        """

    @abstractmethod
    async def fork(self, n: int = 1) -> list[Sandbox]:
        """`n` sandboxes with the files of this one. Nothing that runs is copied.

        Raises:
            SandboxError: as `exec`; then none is left.
        """

    @abstractmethod
    async def close(self) -> None:
        """End everything in it and remove what it takes. May be called more than once, also when it is lost."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Backend(ABC):
    """What starts sandboxes. `async with` closes it, and with it all that it started."""

    name: str
    """As in `open_backend`."""

    @abstractmethod
    async def start(self, spec: SandboxSpec) -> Sandbox:
        """A fresh sandbox.

        Raises:
            ConfigError: this back end cannot do what the spec says.
            SandboxImageError: there is no such image, or it lacks what is needed.
            SandboxDaemonError: the engine cannot be reached, or refuses.
            SandboxError: it does not start.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every sandbox and delete every snapshot. May be called more than once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
