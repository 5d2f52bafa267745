"""Environments that call `sys.exit()`: an error, and never the end of the process."""

import asyncio
import sys
from typing import Any

import pytest

from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.ending import contained
from palaestra.envs.fork import close_all
from palaestra.envs.registry import make, register
from palaestra.errors import EnvError


class Leaver(Env[str, str]):
    """Calls `sys.exit()` when it is closed, and from its second instance on when it is reset."""

    made = 0

    def __init__(self) -> None:
        Leaver.made += 1
        self.number, self.closed = Leaver.made, False

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        if self.number > 1:
            sys.exit("no more")
        return Reset("Go.", {})

    async def step(self, action: str) -> Step[str]:
        return Step("Gone.", 0.0, False, False, {})

    async def close(self) -> None:
        self.closed = True
        sys.exit(1)


def test_closing_many_closes_all() -> None:
    envs = [Leaver() for _ in range(3)]
    asyncio.run(close_all([*envs]))
    assert all(env.closed for env in envs)


def test_a_fork_that_exits_is_an_error() -> None:
    Leaver.made = 0
    register("test/Leaver-v0", Leaver, override=True)

    async def main() -> None:
        env = make("test/Leaver-v0")
        await env.reset(seed=1)
        await env.fork(2)

    with pytest.raises(EnvError, match=r"sys.exit\('no more'\) was called; raise an error instead"):
        asyncio.run(main())


def test_results_errors_and_cancellations_pass() -> None:
    async def main() -> None:
        assert await contained(asyncio.sleep(0, "x")) == "x"
        with pytest.raises(ZeroDivisionError):
            await contained(fail(ZeroDivisionError()))
        with pytest.raises(EnvError, match="CancelledError"):
            await contained(fail(asyncio.CancelledError()))
        waiting = asyncio.create_task(contained(asyncio.sleep(60)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


async def fail(error: BaseException) -> None:
    raise error
