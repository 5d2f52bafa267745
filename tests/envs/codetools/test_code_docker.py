"""Code tools in containers: another system and another Python, and the same promises."""

from __future__ import annotations

import asyncio

import pytest
from support.docker_engines import engine_host
from support.dockerd import BASE

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.tools import CodeTools
from palaestra.errors import SandboxDaemonError, SandboxImageError
from palaestra.sandboxes.spec import MIB

pytestmark = pytest.mark.integration


def tools(host: str, image: str = BASE) -> CodeTools:
    limits = CodeLimits(seconds=60, cpu_seconds=2, memory=256 * MIB)
    return CodeTools("python", "bash", where="docker", image=image, settings={"host": host}, limits=limits)


def test_an_episode_and_its_fork() -> None:
    host = engine_host()

    async def play() -> None:
        first, other = tools(host), tools(host)
        try:
            await first.begin({"a": b"1"})
            assert (await first.call("python", "x = open('a').read()\nx")).text == "'1'\n"
            assert (await first.call("bash", "Y=2; id -u; echo more >> a")).text == "1000"
            assert (await first.call("python", "'a' * (1 << 40)")).text.endswith("MemoryError\n")
            stopped = await first.call("python", "while True: pass")
            assert stopped.stopped == "it used more than 2 s of processor time"
            assert not (await first.call("python", "x")).ok
            await other.restore(first.snapshot())
            for each in (first, other):
                assert (await each.call("bash", "echo $Y; cat a")).text == "2\n1more"
        finally:
            await asyncio.gather(first.close(), other.close())

    asyncio.run(play())


def test_what_is_not_there_is_an_error_that_says_so() -> None:
    host = engine_host()
    with pytest.raises(SandboxImageError, match="no image 'nosuch:image'"):
        asyncio.run(_one(tools(host, "nosuch:image")))
    with pytest.raises(SandboxDaemonError, match="no Docker engine answers at unix:///nowhere"):
        asyncio.run(_one(tools("unix:///nowhere")))


async def _one(made: CodeTools) -> None:
    try:
        await made.call("python", "1")
    finally:
        await made.close()
