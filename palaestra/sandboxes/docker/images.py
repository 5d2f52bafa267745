"""Images of an engine."""

from __future__ import annotations

import re

from aiodocker import Docker
from aiodocker.exceptions import DockerError
from msgspec import Struct

from palaestra.errors import SandboxImageError
from palaestra.sandboxes.docker.engine import Engine
from palaestra.sandboxes.docker.failures import missing

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(:[0-9]+(?=/))?(/[\w][\w.-]*)*(:[\w][\w.-]*)?(@[\w+.-]+:[0-9a-fA-F]+)?")
"""What a name may look like: no other one may get into the path of a request."""


class Image(Struct, frozen=True):
    """An image that the engine has."""

    name: str
    """As it was asked for."""
    id: str
    """By which it is the same one, whatever its name means later."""
    volumes: tuple[str, ...] = ()
    """Folders that it declares to be volumes."""


async def find_image(engine: Engine, name: str, *, pull: bool = False) -> Image:
    """The image of that name.

    Args:
        engine: which has it.
        name: `name[:tag]`, or an id.
        pull: whether the engine may get it from its registry where it has none.

    Raises:
        SandboxImageError: the engine has none, and must not or cannot pull it; or no image can have that name.
        SandboxDaemonError: the engine cannot be asked.
    """
    if not _NAME.fullmatch(name):
        mend = "write [host/]name[:tag], or an id"
        raise SandboxImageError(f"the Docker engine has no image {name[:200]!r}, which is no name of one: {mend}")
    with engine.asking(name) as docker:
        found = await _inspected(docker, name)
        if found is None and pull:
            await docker.images.pull(name)
            found = await _inspected(docker, name)
    if found is None:
        raise missing(name, engine.host)
    return found


async def _inspected(docker: Docker, name: str) -> Image | None:
    try:
        known = await docker.images.inspect(name)
    except DockerError as error:
        if error.status == 404 or "invalid reference format" in error.message:
            return None
        raise
    return Image(name, known["Id"], tuple(sorted((known.get("Config") or {}).get("Volumes") or ())))
