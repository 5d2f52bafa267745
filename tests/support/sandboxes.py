"""Tests that run inside a sandbox, on every back end that is there."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec, ExecResult
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import Limits, SandboxSpec

Place = Callable[[], tuple[Backend, SandboxSpec]]
"""Opens a back end, and says what a sandbox is there."""


def bubblewrap() -> tuple[Backend, SandboxSpec]:
    """Namespaces on this machine."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    return open_backend("bubblewrap"), SandboxSpec()


def docker() -> tuple[Backend, SandboxSpec]:
    """Containers of the engine at DOCKER_HOST."""
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("DOCKER_HOST names no engine")
    return open_backend("docker"), SandboxSpec(image=os.environ.get("PALAESTRA_TEST_IMAGE", "palaestra-base:test"))


def remote() -> tuple[Backend, SandboxSpec]:
    """A server in this process, over bubblewrap."""
    pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")
    backend, spec = bubblewrap()
    return _Served(backend), spec


class _Served(Backend):
    """Has a server as long as it is open."""

    name = "remote"

    def __init__(self, behind: Backend) -> None:
        from palaestra.sandboxes.remote.admission import Allowed
        from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings

        self._server = SandboxServer(behind, ServerSettings(port=0, allowed=Allowed(network=True)))
        self._client: Backend | None = None
        self._opening = asyncio.Lock()

    async def start(self, spec: SandboxSpec) -> Sandbox:
        async with self._opening:
            if self._client is None:
                await self._server.__aenter__()
                self._client = open_backend("remote", url=self._server.url)
        return await self._client.start(spec)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            await self._server.__aexit__(None, None, None)


PLACES: list[Place] = [bubblewrap, docker, remote]


def inside(**limits: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Turns a test of a sandbox into one that pytest runs, with a sandbox of these limits and its own fixtures."""

    def wrap(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def run(place: Place, **fixtures: Any) -> None:
            asyncio.run(_run(place, Limits(**limits), lambda sandbox: test(sandbox, **fixtures)))

        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        fixtures = [each for name, each in inspect.signature(test).parameters.items() if name != "sandbox"]
        place = inspect.Parameter("place", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([place, *fixtures])  # type: ignore[attr-defined]
        return run

    return wrap


async def _run(place: Place, limits: Limits, test: Callable[[Sandbox], Awaitable[None]]) -> None:
    backend, spec = place()
    async with backend, await backend.start(replace(spec, limits=limits)) as sandbox, asyncio.timeout(120):
        await test(sandbox)


async def sh(sandbox: Sandbox, script: str, **settings: Any) -> ExecResult:
    """Run a script."""
    return await sandbox.exec(Exec(shell=script, **settings))


async def told(sandbox: Sandbox, script: str, **settings: Any) -> str:
    """What a script that must not fail prints."""
    result = await sh(sandbox, script, **settings)
    assert result.ok, result
    return result.stdout.text
