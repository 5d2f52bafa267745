"""Removing things of an engine, now or when nothing uses them any more."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import aiohttp
from aiodocker.exceptions import DockerError

from palaestra.errors import SandboxError
from palaestra.sandboxes.docker.engine import Engine, absence

_SECONDS = 60.0
"""How long the removal of a container may take."""


async def remove_container(engine: Engine, name: str) -> None:
    """Kill and remove a container with its folders, and wait until it is gone. One that is gone is no error.

    Raises:
        SandboxDaemonError: the engine cannot be asked, or does not do it.
    """
    with engine.asking() as docker:
        container = docker.containers.container(name)
        async with engine.governor.turn():
            with absence():
                await container.delete(force=True, v=True)
        with absence():
            await container.wait(condition="removed", timeout=aiohttp.ClientTimeout(total=_SECONDS))


class Leftovers:
    """Volumes and images that are no longer wanted, but may still be in use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, Literal["volume", "image"]] = {}

    async def add(self, kind: Literal["volume", "image"], name: str) -> None:
        """Remove it as soon as that can be done."""
        self._waiting[name] = kind
        await self.sweep()

    async def sweep(self) -> None:
        """Remove what is not in use any more; the rest is for the next time, or the reaper."""
        for name in list(self._waiting):
            with suppress(SandboxError):
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        with self._engine.asking() as docker:
            try:
                if self._waiting.get(name) == "volume":
                    volumes: Any = docker.volumes  # aiodocker gives no types for them
                    await (await volumes.get(name)).delete()
                else:
                    await docker.images.delete(name)
            except DockerError as error:
                if error.status == 409:  # in use
                    return
                if error.status != 404:
                    raise
        self._waiting.pop(name, None)
