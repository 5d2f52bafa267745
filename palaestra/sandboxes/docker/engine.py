"""The connection to a Docker engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from palaestra.sandboxes.docker.failures import FAILURES, absent, explain
from palaestra.sandboxes.governor import Governor

_TIMEOUT = aiohttp.ClientTimeout(total=180.0, sock_connect=10.0)
"""Of one request. What takes longer (pulling, committing) says so itself."""
_UNIX = "unix://"


class Engine:
    """An engine. Connections are made by the first request, in its event loop, and kept."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "")
        """Such as `unix:///run/docker.sock`; empty: where Docker's contexts say, or at the usual sockets."""
        self.governor = Governor()
        """How much it is asked for at once."""
        self._docker: Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None

    @contextmanager
    def asking(self, image: str = "") -> Iterator[Docker]:
        """aiodocker's client; what fails meanwhile raises an error that says what to do.

        Args:
            image: what is being started, for errors that are its.

        Raises:
            SandboxDaemonError: the engine cannot be reached, or refuses.
            SandboxImageError: the image is missing, or lacks python3.
        """
        try:
            if self._docker is None:
                self._docker = self._connect()
            yield self._docker
        except FAILURES as error:
            raise explain(error, self.host or "its usual address", image) from error

    def _connect(self) -> Docker:
        if self.host.startswith(_UNIX):
            # Each sandbox keeps a connection of its own, so that there must be no upper limit of them.
            connector = aiohttp.UnixConnector(self.host.removeprefix(_UNIX), limit=0)
            self._connector = connector
            return Docker(f"{_UNIX}localhost", connector=connector, timeout=_TIMEOUT)
        try:
            return Docker(self.host or None, timeout=_TIMEOUT)
        except (AssertionError, TypeError, ValueError) as error:
            raise absent(self.host) from error

    async def close(self) -> None:
        """Close the connections. May be called more than once; the next request opens new ones."""
        docker, self._docker = self._docker, None
        connector, self._connector = self._connector, None
        if docker is not None:
            await docker.close()
        if connector is not None:
            await connector.close()


@contextmanager
def absence() -> Iterator[None]:
    """What is to be removed may be gone (404), or somebody is removing it (409)."""
    try:
        yield
    except DockerError as error:
        if error.status not in (404, 409):
            raise
