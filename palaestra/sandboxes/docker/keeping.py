"""Work folders kept in volumes: what an image has there, and what a sandbox had there at one moment.

Only root can copy every file of others as it is, so that a container of its own does: a copier, which lives as long as
it copies or lends its copy, has the two folders and nothing else, and runs the Python of the image that the sandbox was
started from, in which nothing that ran in the sandbox can have changed anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker.containers import DockerContainer

from palaestra.errors import SandboxError
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.docker.attachment import Attachment
from palaestra.sandboxes.docker.containers import KEPT, copier_config
from palaestra.sandboxes.docker.engine import Engine, absence
from palaestra.sandboxes.docker.failures import died
from palaestra.sandboxes.docker.images import Image
from palaestra.sandboxes.docker.removing import remove_container
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.sandboxes.waiting import settled

_PROGRAM = ("python3", "-I", "-S", "-c", Path(__file__).with_name("copying.py").read_text(encoding="utf-8"))
_SOURCE = "/source"
_FILL_SECONDS = 600.0
"""In which a work folder must be filled."""
_EMPTY_SECONDS = 60.0
"""In which a copier must have taken away what it lent."""
_FULL = "No space left on device"


class Copier:
    """A container that copies one folder into a volume. Started first: what it copies is held still only for that."""

    def __init__(self, engine: Engine, name: str, attachment: Attachment, lending: bool) -> None:
        self._engine, self._name, self._attachment = engine, name, attachment
        self._lending, self._lent = lending, False

    @classmethod
    async def make(
        cls,
        engine: Engine,
        image: Image,
        spec: SandboxSpec,
        kept: str,
        labels: Mapping[str, str],
        volume: str = "",
        declared: Mapping[str, str] | None = None,
        lending: bool = False,
    ) -> Copier:
        """A copier that runs and has not begun to copy.

        Args:
            engine: where it runs.
            image: whose Python it runs.
            spec: of the sandbox that the copy is of, or for.
            kept: volume that it copies into.
            labels: of the container.
            volume: what it copies; empty: what the image has at the place of the work folder.
            declared: see `copier_config`.
            lending: whether the copy goes when the copier is closed.

        Raises:
            SandboxImageError: the image has no python3.
            SandboxDaemonError: the engine refuses.
        """
        name, source = f"palaestra-copier-{secrets.token_hex(6)}", _SOURCE if volume else spec.workdir
        program = [*_PROGRAM, "lend" if lending else "keep", source, KEPT, *map(str, spec.user)]
        mounted = (volume, _SOURCE) if volume else None
        config = copier_config(image.id, program, kept, labels=labels, source=mounted, declared=declared)
        try:
            with engine.asking(image.name) as docker:
                container = await settled(docker.containers.create(config, name=name))
                copier = cls(engine, name, await Attachment.open(docker, container.id), lending)
                await copier._start(container)
                return copier
        except BaseException:
            await settled(remove_container(engine, name))
            raise

    async def _start(self, container: DockerContainer) -> None:
        try:
            await container.start()
        except BaseException:
            self._attachment.close()
            raise

    async def copy(self, image: str) -> int:
        """Copy, and give the number of files.

        Raises:
            SandboxImageError: the python3 of the image, which has that name, is too old.
            SandboxDaemonError: the engine's disk is full, or it cannot be reached.
            SandboxError: something cannot be copied.
        """
        with self._engine.asking(image):
            self._attachment.writer.write(b"\n")
            answer = (await self._attachment.output.readline()).strip()
        if answer.isdigit():
            self._lent = self._lending
            return int(answer)
        raise died(self._attachment.complaint, image, "cannot copy a work folder")

    async def close(self) -> None:
        """Remove it. May be called more than once."""
        self._attachment.close()
        if self._lent:
            with suppress(SandboxError):
                await self._emptied()
        await remove_container(self._engine, self._name)

    async def _emptied(self) -> None:
        """Wait until it has ended by itself."""
        timeout = aiohttp.ClientTimeout(total=_EMPTY_SECONDS)
        with self._engine.asking() as docker, absence():
            await docker.containers.container(self._name).wait(condition="removed", timeout=timeout)


async def new_volume(engine: Engine, labels: Mapping[str, str], options: Mapping[str, str] | None = None) -> str:
    """Name of a volume with nothing in it; without options of the engine's own driver it is on the engine's disk."""
    with engine.asking() as docker:
        name = f"palaestra-{secrets.token_hex(8)}"
        config = {"Name": name, "Labels": dict(labels), "DriverOpts": dict(options or {})}
        volumes: Any = docker.volumes  # aiodocker gives no types for them
        return str((await volumes.create(config)).name)


async def fill(sandbox: Sandbox) -> None:
    """Copy into a fresh sandbox's work folder what the volume keeps that it was started with.

    Raises:
        SandboxError: it does not fit, or the sandbox is lost.
    """
    argv = (*_PROGRAM, "fill", KEPT, sandbox.spec.workdir)
    result = await sandbox.exec(Exec(argv=argv, timeout=_FILL_SECONDS, output=4096))
    if result.ok:
        return
    reason = result.stderr.text.strip() or f"{result.ending} {result.exit_code}"
    if _FULL in reason or result.ending == "memory":
        mend = "raise the limits disk or memory"
        raise SandboxError(f"what belongs into the work folder does not fit: {reason}; {mend}")
    raise SandboxError(f"the work folder cannot be filled: {reason}")
