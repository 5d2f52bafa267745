"""Work folders kept in volumes: what an image has there, and what a sandbox had there at one moment.

Only root can copy every file of others as it is, so that a container of its own does: a copier, which lives for the
copy, has the two folders and nothing else, and runs the Python of the image that the sandbox was started from, in which
nothing that ran in the sandbox can have changed anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palaestra.errors import SandboxError
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Sandbox
from palaestra.sandboxes.docker.attachment import Attachment
from palaestra.sandboxes.docker.containers import KEPT, copier_config
from palaestra.sandboxes.docker.engine import Engine
from palaestra.sandboxes.docker.failures import died
from palaestra.sandboxes.docker.images import Image
from palaestra.sandboxes.docker.removing import remove_container
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.sandboxes.waiting import settled

_PROGRAM = ("python3", "-I", "-S", "-c", Path(__file__).with_name("copying.py").read_text(encoding="utf-8"))
_SOURCE = "/source"
_FILL_SECONDS = 600.0
"""In which a work folder must be filled."""
_FULL = "No space left on device"


class Copier:
    """A container that copies one folder into a volume. Made first, so that what it copies is held still for less."""

    def __init__(self, engine: Engine, name: str, attachment: Attachment) -> None:
        self._engine, self._name, self._attachment = engine, name, attachment

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
    ) -> Copier:
        """A copier that has not begun.

        Args:
            engine: where it runs.
            image: whose Python it runs.
            spec: of the sandbox that the copy is of, or for.
            kept: volume that it copies into.
            labels: of the container.
            volume: what it copies; empty: what the image has at the place of the work folder.
            declared: see `copier_config`.

        Raises:
            SandboxDaemonError: the engine refuses.
        """
        name, source = f"palaestra-copier-{secrets.token_hex(6)}", _SOURCE if volume else spec.workdir
        program = [*_PROGRAM, "keep", source, KEPT, *map(str, spec.user)]
        mounted = (volume, _SOURCE) if volume else None
        config = copier_config(image.id, program, kept, labels=labels, source=mounted, declared=declared)
        try:
            with engine.asking(image.name) as docker:
                container = await settled(docker.containers.create(config, name=name))
                return cls(engine, name, await Attachment.open(docker, container.id))
        except BaseException:
            await settled(remove_container(engine, name))
            raise

    async def copy(self, image: str) -> int:
        """Copy, and give the number of files.

        Raises:
            SandboxImageError: the image, of that name, has no python3.
            SandboxDaemonError: the engine's disk is full, or it refuses.
            SandboxError: something cannot be copied.
        """
        with self._engine.asking(image) as docker:
            await docker.containers.container(self._name).start()
            answer = await self._attachment.output.read()
        if answer.strip().isdigit():
            return int(answer)
        raise died(self._attachment.complaint, image, "cannot copy a work folder")

    async def close(self) -> None:
        """Remove it. May be called more than once."""
        self._attachment.close()
        await remove_container(self._engine, self._name)


async def new_volume(engine: Engine, labels: Mapping[str, str]) -> str:
    """Name of a volume with nothing in it."""
    with engine.asking() as docker:
        config = {"Name": f"palaestra-{secrets.token_hex(8)}", "Labels": dict(labels)}
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
