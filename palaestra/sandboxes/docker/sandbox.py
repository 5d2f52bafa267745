"""A sandbox that is a container, and its snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError
from msgspec.structs import replace

from palaestra.errors import SandboxError
from palaestra.sandboxes.attached import AttachedSandbox
from palaestra.sandboxes.core import Sandbox, Snapshot
from palaestra.sandboxes.docker.attachment import Attachment
from palaestra.sandboxes.docker.images import Image
from palaestra.sandboxes.docker.keeping import Copier
from palaestra.sandboxes.link import Link, StreamWire
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.sandboxes.waiting import all_or_none, settled

if TYPE_CHECKING:
    from palaestra.sandboxes.docker.backend import DockerBackend

_COMMIT = aiohttp.ClientTimeout(total=600.0, sock_connect=10.0)


class DockerSandbox(AttachedSandbox):
    """A container with the runner as its first process."""

    def __init__(
        self, backend: DockerBackend, id: str, spec: SandboxSpec, images: tuple[Image, Image], attachment: Attachment
    ) -> None:
        super().__init__(id, spec, Link(StreamWire(attachment.output, attachment.writer)))
        self.attachment = attachment
        """The connection to its first process."""
        self.images = images
        """What the spec names, and what it runs on: the same one, or a commit of a container of that."""
        self._backend = backend
        self._still = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None

    async def snapshot(self) -> Snapshot:
        """See `Sandbox`. The work folder is copied into a volume, and a writable root committed as an image."""
        backend, kept = self._backend, await self._backend.new_volume()
        try:
            image, copier = await self._keep(kept)
        except BaseException:
            await settled(backend.leftovers.add("volume", kept))
            raise
        backend.close_later(copier)
        made = DockerSnapshot(backend, self.spec, (self.images[0], image), kept)
        backend.snapshots.add(made)
        return made

    async def fork(self, n: int = 1) -> list[Sandbox]:
        """See `Sandbox`. The siblings start while the work folder is copied, in memory: for them only."""
        if self.spec.root == "writable":  # they need the image first
            async with _deleting(await self.snapshot()) as snapshot:
                return await all_or_none([snapshot.start() for _ in range(n)])
        backend, kept = self._backend, await self._backend.new_volume(self.spec.limits.disk)
        copied = asyncio.Event()
        copying = asyncio.create_task(self._keep(kept, copied))
        copying.add_done_callback(lambda _: copied.set())

        async def whole() -> None:
            await copied.wait()
            if copying.done():  # if not, this sandbox is being let go on, for which they need not wait
                copying.result()

        try:
            starts = [backend.begin(self.spec, self.images, kept, whole) for _ in range(n)]
            siblings = await all_or_none(starts)
            await copying
        except BaseException:
            copying.cancel()
            await settled(_ended(copying))
            raise
        finally:
            if not copying.cancelled() and not copying.exception():
                backend.close_later(copying.result()[1])
            await settled(backend.leftovers.add("volume", kept))
        return siblings

    async def close(self) -> None:
        """See `Sandbox`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self.link.close()
        self.attachment.close()
        with suppress(SandboxError):  # an engine that is gone took it along, or the reaper will
            await self._backend.remove(self)

    async def _keep(self, kept: str, copied: asyncio.Event | None = None) -> tuple[Image, Copier]:
        """Copy the work folder into a volume while everything is held still.

        Args:
            kept: the volume.
            copied: set when that is done; the copy is then lent until the copier is closed.

        Returns:
            The image of the root, and the copier, to be closed.
        """
        self.link.check()
        backend, (original, image) = self._backend, self.images
        copier = await backend.copier(original, self.spec, kept, await self._volume(), lending=copied is not None)
        try:
            async with self._held_still():
                await copier.copy(original.name)
                if copied is not None:
                    copied.set()
                if self.spec.root == "writable":
                    image = await self._commit()
        except BaseException:
            backend.close_later(copier)
            raise
        return image, copier

    @asynccontextmanager
    async def _held_still(self) -> AsyncIterator[None]:
        """By the engine; by the runner where the engine cannot (without the kernel's freezer, or overloaded)."""
        async with self._still:
            with self._backend.engine.asking() as docker:
                container = docker.containers.container(self.id)
                if not await _paused(container):
                    async with self.held_still():
                        yield
                    return
                try:
                    yield
                finally:
                    await settled(container.unpause())

    async def _volume(self) -> str:
        """Name of its work folder's volume."""
        with self._backend.engine.asking() as docker:
            mounts = (await docker.containers.get(self.id))["Mounts"]
        return str(next(each["Name"] for each in mounts if each["Destination"] == self.spec.workdir))

    async def _commit(self) -> Image:
        """Its root as an image, which has the container's labels."""
        with self._backend.engine.asking() as docker:
            committed = await docker.containers.container(self.id).commit(pause=False, timeout=_COMMIT)
        return replace(self.images[0], id=str(committed["Id"]))


class DockerSnapshot(Snapshot):
    """A volume with the work folder, and the image of the root."""

    def __init__(self, backend: DockerBackend, spec: SandboxSpec, images: tuple[Image, Image], kept: str) -> None:
        self.id, self.spec = kept, spec
        self._backend, self._images = backend, images
        self._deleted = False

    async def start(self) -> Sandbox:
        """See `Snapshot`."""
        if self._deleted:
            raise SandboxError(f"snapshot {self.id} was deleted")
        return await self._backend.begin(self.spec, self._images, self.id)

    async def delete(self) -> None:
        """See `Snapshot`. What sandboxes still use is removed with the last of them."""
        if self._deleted:
            return
        self._deleted = True
        self._backend.snapshots.discard(self)
        original, image = self._images
        await self._backend.leftovers.add("volume", self.id)
        if image.id != original.id:
            await self._backend.leftovers.add("image", image.id)


async def _paused(container: DockerContainer) -> bool:
    """Pause it; whether that was possible."""
    try:
        await settled(container.pause())
    except DockerError:
        return False
    except asyncio.CancelledError:  # it is paused by now, or cannot be
        with suppress(DockerError):
            await settled(container.unpause())
        raise
    return True


@asynccontextmanager
async def _deleting(snapshot: Snapshot) -> AsyncIterator[Snapshot]:
    """Delete it in the end."""
    try:
        yield snapshot
    finally:
        await settled(snapshot.delete())


async def _ended(task: asyncio.Task[tuple[Image, Copier]]) -> None:
    """However it ended."""
    await asyncio.gather(task, return_exceptions=True)
