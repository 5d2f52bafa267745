"""Images made from the Dockerfiles of tasks, by the Docker engine at hand, where the user says that they may be.

Making one runs the commands of a stranger's Dockerfile in containers of the engine's, as root and with its network. It
gets the folders that Harbor's tests use, which have to be there for who is not root.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import tempfile
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING

from palaestra.envs.swe.instance import Instance
from palaestra.errors import SandboxImageError, require

if TYPE_CHECKING:
    from palaestra.sandboxes.docker.engine import Engine

SECONDS = 1800.0
"""That making an image may take."""
LAST = """
USER root
RUN mkdir -p /tests /logs/verifier /logs/agent /solution && chown -R 1000:1000 /tests /logs /solution
"""
"""The end of every Dockerfile."""
_making: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = weakref.WeakKeyDictionary()


async def ensure(instance: Instance, host: str = "") -> None:
    """Make the image of a task, unless the engine has it; several who ask at once wait for the same one.

    Args:
        instance: with `build`.
        host: of the engine, as the docker back end has it.

    Raises:
        MissingExtraError: aiodocker is not installed.
        SandboxDaemonError: the engine cannot be reached.
        SandboxImageError: it cannot be made.
    """
    require("aiodocker", "docker")
    from palaestra.sandboxes.docker.engine import Engine

    locks = _making.setdefault(asyncio.get_running_loop(), {})
    async with locks.setdefault(instance.image, asyncio.Lock()):
        engine = Engine(host)
        try:
            if not await _exists(engine, instance.image):
                await _make(engine, instance)
        finally:
            await engine.close()


async def _exists(engine: Engine, image: str) -> bool:
    from palaestra.sandboxes.docker.images import find_image

    try:
        await find_image(engine, image)
    except SandboxImageError:
        return False
    return True


async def _make(engine: Engine, instance: Instance) -> None:
    from aiodocker.exceptions import DockerError

    with tempfile.TemporaryFile() as context, engine.asking(instance.image) as docker:
        await asyncio.to_thread(_pack, Path(instance.build), context)
        try:
            async with asyncio.timeout(SECONDS):
                await docker.images.build(fileobj=context, encoding="identity", tag=instance.image, forcerm=True)
        except DockerError as error:
            why = " ".join(str(error.message).split())[-300:]
            raise SandboxImageError(f"{instance.build}: its Dockerfile cannot be built: {why}") from error
        except TimeoutError:
            raise SandboxImageError(f"{instance.build}: its Dockerfile takes longer than {SECONDS:g} s") from None


def _pack(folder: Path, target: IO[bytes]) -> None:
    """What the engine builds from."""
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if path != folder / "Dockerfile":
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
        text = (folder / "Dockerfile").read_bytes() + LAST.encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    target.seek(0)
