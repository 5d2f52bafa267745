"""What sandboxes take of a Docker engine: containers, networks, volumes and images with a lease's label."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from palaestra.errors import SandboxDaemonError, require
from palaestra.sandboxes.leases import EXPIRES_LABEL, LABEL
from palaestra.sandboxes.things import Kind, Thing

if TYPE_CHECKING:
    from aiodocker import Docker

_SECONDS = 120.0
"""For one request to the engine: removing a container takes long where the machine is busy."""
_FILTER = {"label": [LABEL]}
_GONE, _CONFLICT, _FAILED = 404, 409, 500
_IN_USE_SECONDS = {"container": 60.0}
"""How long it is tried again to remove what is in use, or is being removed by the engine itself; 5 for all the rest."""
_UNREACHABLE = 900
"""The status that aiodocker gives to an engine that it cannot connect to."""


class DockerKeeper:
    """What an engine has with a lease's label."""

    name = "docker"

    def __init__(self, docker: Docker) -> None:
        """Keeps what `docker`, which stays the caller's, answers for."""
        self._docker = docker
        self._volumes: Any = docker.volumes  # the package gives them no types

    async def things(self) -> list[Thing]:
        """See `Keeper.things`."""
        async with _told("cannot list what the Docker engine has"):
            return await self._things()

    async def remove(self, thing: Thing) -> None:
        """See `Keeper.remove`."""
        from aiodocker import DockerError

        end = time.monotonic() + _IN_USE_SECONDS.get(thing.kind, 5.0)
        async with _told(f"cannot remove {thing.kind} {thing.name}"):
            while True:
                try:
                    return await self._remove(thing)
                except DockerError as error:
                    if error.status == _GONE:
                        return
                    if error.status not in (_CONFLICT, _FAILED) or time.monotonic() > end:
                        raise
                await asyncio.sleep(0.1)  # somebody else removes it (the engine may fail then), or what uses it

    async def _things(self) -> list[Thing]:
        docker, shelf = self._docker, self._volumes
        containers = await docker.containers.list(all="true", filters=json.dumps(_FILTER))
        networks = await docker.networks.list(filters=_FILTER)
        volumes = (await shelf.list(filters=_FILTER))["Volumes"] or []
        images = await docker.images.list(filters=_FILTER)
        return [
            *(_thing("container", each._container, "Id", "Created", _name(each._container)) for each in containers),
            *(_thing("network", each, "Id", "Created") for each in networks),
            *(_thing("volume", each, "Name", "CreatedAt") for each in volumes),
            *(_thing("image", each, "Id", "Created") for each in images),
        ]

    async def _remove(self, thing: Thing) -> None:
        docker, name = self._docker, thing.name
        if thing.kind == "container":
            await docker.containers.container(name).delete(force=True, v=True)
        elif thing.kind == "network":
            await (await docker.networks.get(name)).delete()
        elif thing.kind == "volume":
            await (await self._volumes.get(name)).delete(force=True)
        else:
            await docker.images.delete(name, force=True)


@asynccontextmanager
async def docker_keeper() -> AsyncIterator[DockerKeeper]:
    """A keeper of the engine that `DOCKER_HOST`, docker's contexts or the usual sockets name.

    Raises:
        MissingExtraError: aiodocker is not installed.
        SandboxDaemonError: there is no engine.
    """
    require("aiodocker", "docker")
    import aiodocker
    import aiohttp

    async with _told("there is no Docker engine to look at"):
        docker = aiodocker.Docker(timeout=aiohttp.ClientTimeout(total=_SECONDS))
    try:
        async with _told("the Docker engine does not answer"):
            await docker.version()
        yield DockerKeeper(docker)
    finally:
        await docker.close()


@asynccontextmanager
async def _told(what: str) -> AsyncIterator[None]:
    """Say in one line what could not be done, and why."""
    import aiohttp
    from aiodocker import DockerError

    try:
        yield
    except (DockerError, aiohttp.ClientError, OSError, ValueError, AssertionError, TimeoutError) as error:
        if isinstance(error, DockerError) and error.status != _UNREACHABLE:
            raise SandboxDaemonError(f"{what}: {error.message}") from error
        reason = error.message if isinstance(error, DockerError) else str(error) or "no socket is where it should be"
        raise SandboxDaemonError(f"{what}: {reason}; is it running, and is DOCKER_HOST right?") from error


def _thing(kind: Kind, found: Mapping[str, Any], name: str, created: str, shown: str = "") -> Thing:
    labels = found["Labels"] or {}
    return Thing(
        name=shown or found[name],
        kind=kind,
        backend="docker",
        lease=labels.get(LABEL, ""),
        image=found["Image"] if kind == "container" else "",
        created=_seconds(found.get(created)),
        expires=_seconds(labels.get(EXPIRES_LABEL)),
    )


def _name(container: Mapping[str, Any]) -> str:
    names = container["Names"] or [container["Id"]]
    return str(names[0]).removeprefix("/")


def _seconds(moment: Any) -> float | None:
    """What the engine or a label says, as a number or a date; `None` where it makes no sense."""
    try:
        return float(moment)
    except (TypeError, ValueError):
        pass
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError):
        return None
