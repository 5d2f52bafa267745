"""The docker back end."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from palaestra.errors import SandboxError, SandboxPathError
from palaestra.sandboxes.boot import runner_command
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.docker.attachment import Attachment
from palaestra.sandboxes.docker.containers import check, in_memory, sandbox_config
from palaestra.sandboxes.docker.engine import Engine
from palaestra.sandboxes.docker.failures import died
from palaestra.sandboxes.docker.images import Image, find_image
from palaestra.sandboxes.docker.keeping import Copier, fill, new_volume
from palaestra.sandboxes.docker.removing import Leftovers, remove_container
from palaestra.sandboxes.docker.sandbox import DockerSandbox, DockerSnapshot
from palaestra.sandboxes.docker_keeper import DockerKeeper
from palaestra.sandboxes.leases import Lease
from palaestra.sandboxes.reaper import reap_from, reap_soon
from palaestra.sandboxes.spec import MIB, SandboxSpec
from palaestra.sandboxes.waiting import settled

_READY_SECONDS = 120.0
"""In which the runner must answer."""
_SPARE_SECONDS = 24 * 3600.0
"""After its lifetime, by which a container is left over even where nobody can tell who holds its lease."""

_BESIDE = 16 * MIB
"""In a volume in memory beside the files: their rights. Nobody but a copier, which ends soon, writes into it."""

Origin = tuple[str, str, tuple[int, int]]
"""Id of an image, work folder and user: what decides what a fresh work folder has in it."""


class DockerBackend(Backend):
    """Starts sandboxes in containers. Used from one event loop."""

    name = "docker"

    def __init__(self, host: str = "", runtime: str = "", pull: bool = False) -> None:
        """A back end that has not yet asked its engine anything.

        Args:
            host: address of the engine; empty: `DOCKER_HOST`, Docker's contexts, or the usual sockets.
            runtime: such as `runsc`, which the engine has to know; empty: its default.
            pull: whether images that it lacks are pulled.
        """
        self.engine = Engine(host)
        """The connection."""
        self.leftovers = Leftovers(self.engine)
        """What goes when nothing uses it any more."""
        self.snapshots: set[DockerSnapshot] = set()
        """Those that were not deleted."""
        self._runtime, self._pull = runtime, pull
        self._token = secrets.token_hex(6)
        self._lease: Lease | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._sandboxes: set[DockerSandbox] = set()
        self._later: set[asyncio.Task[None]] = set()
        self._origins: dict[Origin, asyncio.Task[str]] = {}
        self._program = runner_command()

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """See `Backend`."""
        check(spec)
        image = await find_image(self.engine, spec.image, pull=self._pull)
        self._reap()
        return await self.begin(spec, (image, image), await self._origin(image, spec))

    async def begin(
        self,
        spec: SandboxSpec,
        images: tuple[Image, Image],
        kept: str,
        whole: Callable[[], Awaitable[None]] | None = None,
    ) -> Sandbox:
        """A sandbox whose work folder has what a volume keeps.

        Args:
            spec: what it may.
            images: see `DockerSandbox.images`.
            kept: the volume; empty: there is nothing in the work folder.
            whole: returns when the volume is whole, for which `fill` waits, or raises when that is not to be; missing
                where it already is.

        Raises:
            SandboxImageError: the image lacks what is needed.
            SandboxDaemonError: the engine cannot be reached, or refuses.
            SandboxError: it does not start, or `whole` failed.
        """
        sandbox = await self._boot(spec, images, kept)
        try:
            filling = [fill(sandbox)] if kept else []
            await asyncio.gather(*filling, *([whole()] if whole else []))
        except BaseException:
            await settled(sandbox.close())
            raise
        return sandbox

    async def _boot(self, spec: SandboxSpec, images: tuple[Image, Image], kept: str) -> DockerSandbox:
        """A sandbox with an empty work folder."""
        id, (original, image) = f"palaestra-{secrets.token_hex(6)}", images
        labels = self._labels(spec.limits.lifetime + _SPARE_SECONDS)
        config = sandbox_config(
            spec,
            image.id,
            self._program,
            labels=labels,
            kept=kept,
            declared=self._declared(original),
            runtime=self._runtime,
        )
        try:
            async with self.engine.governor.turn("start"):
                with self.engine.asking(original.name) as docker:
                    container = await settled(docker.containers.create(config, name=id))
                    attachment = await Attachment.open(docker, container.id)
                    sandbox = DockerSandbox(self, id, spec, images, attachment)
                    self._sandboxes.add(sandbox)
                    await settled(container.start())
                await self._ready(sandbox)
        except BaseException:
            await settled(self._abandon(id))
            raise
        return sandbox

    async def _ready(self, sandbox: DockerSandbox) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await sandbox.configure()
        except TimeoutError:
            raise SandboxError(f"the sandbox does not answer within {_READY_SECONDS:g} s of its start") from None
        except SandboxPathError as error:
            raise SandboxError(f"the sandbox does not start: {error}") from error
        except SandboxError as error:
            complaint = sandbox.attachment.complaint or str(error)
            raise died(complaint, sandbox.images[0].name, "the sandbox ends at its start") from error

    async def _abandon(self, id: str) -> None:
        """Remove what may have been made of a sandbox that does not start."""
        for sandbox in [each for each in self._sandboxes if each.id == id]:
            await sandbox.close()
        with suppress(SandboxError):
            await remove_container(self.engine, id)

    async def remove(self, sandbox: DockerSandbox) -> None:
        """Remove its container, and what waits for that.

        Raises:
            SandboxDaemonError: the engine cannot be reached.
        """
        self._sandboxes.discard(sandbox)
        await remove_container(self.engine, sandbox.id)
        await self.leftovers.sweep()

    def close_later(self, copier: Copier) -> None:
        """Remove a copier in the background, and then what it used. Where that fails it is the reaper's."""
        task = asyncio.create_task(self._close_copier(copier))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _close_copier(self, copier: Copier) -> None:
        with suppress(SandboxError):
            await copier.close()
        await self.leftovers.sweep()

    async def new_volume(self, size: int = 0) -> str:
        """Name of an empty volume of this back end's: on disk, or in memory and then for so many bytes of files."""
        options = in_memory(2 * size + _BESIDE) if size else None
        return await settled(new_volume(self.engine, self._labels(), options))

    async def copier(
        self, image: Image, spec: SandboxSpec, kept: str, volume: str = "", lending: bool = False
    ) -> Copier:
        """See `Copier.make`."""
        labels, declared = self._labels(_SPARE_SECONDS), self._declared(image)
        return await Copier.make(self.engine, image, spec, kept, labels, volume, declared, lending)

    async def _origin(self, image: Image, spec: SandboxSpec) -> str:
        """Volume with what an image has at the place of the work folder, copied once; empty: it has nothing there."""
        key = (image.id, spec.workdir, spec.user)
        if key not in self._origins:
            task = self._origins[key] = asyncio.create_task(self._copied(image, spec))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(self._origins[key])

    def _forget(self, key: Origin, done: asyncio.Task[str]) -> None:
        """The next one tries again."""
        if done.cancelled() or done.exception():
            self._origins.pop(key, None)

    async def _copied(self, image: Image, spec: SandboxSpec) -> str:
        kept = await self.new_volume()
        try:
            copier = await self.copier(image, spec, kept)
            try:
                count = await copier.copy(image.name)
            finally:
                self.close_later(copier)
        except BaseException:
            await settled(self.leftovers.add("volume", kept))
            raise
        if count:
            return kept
        await self.leftovers.add("volume", kept)
        return ""

    def _declared(self, image: Image) -> dict[str, str]:
        """Volumes for the folders that an image declares to be some: the same ones for all sandboxes."""
        return {path: f"palaestra-{self._token}-{image.id[-12:]}-{n}" for n, path in enumerate(image.volumes)}

    def _labels(self, seconds: float | None = None) -> Mapping[str, str]:
        if self._lease is None:
            self._lease = Lease.open(f"{self.name} back end")
        return self._lease.labels(seconds)

    def _reap(self) -> None:
        """At the first start: remove what others left behind."""
        if self._reaping is None:
            with self.engine.asking() as docker:
                self._reaping = reap_soon(DockerKeeper(docker))

    async def close(self) -> None:
        """See `Backend`."""
        reaping, self._reaping = self._reaping, None
        tasks = [*self._origins.values(), *([reaping] if reaping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in list(self._sandboxes)))
        await asyncio.gather(*(each.delete() for each in list(self.snapshots)), *self._later)
        with suppress(SandboxError):  # an engine that is gone: the reaper will find what it has when it is back
            await self._remove_all()
        await self.engine.close()
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    async def _remove_all(self) -> None:
        """Remove all that has the lease's id, whatever became of it."""
        if self._lease is not None:
            with self.engine.asking() as docker:
                await reap_from([DockerKeeper(docker)], [self._lease.id])
