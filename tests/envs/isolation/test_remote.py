"""Environments on a server, as a program that uses them sees them: what can go wrong, and what it is told."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from support.isolated_envs import Able, Bad, Ledger, spec

from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import RandomAgent
from palaestra.envs.core import Env
from palaestra.envs.isolation.env import IsolatedEnv
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.isolation.protocol import Ask, Value, encode
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import DeadlineError, EnvError, PalaestraError, WorkerError
from palaestra.trajectories.record import Trajectory

aiohttp = pytest.importorskip("aiohttp", reason="the extra 'remote' is not installed")

from aiohttp import web  # noqa: E402
from support.serving import serving, shared_server  # noqa: E402

from palaestra.envs.isolation import remote  # noqa: E402

Answer = Callable[[web.WebSocketResponse, Any], Awaitable[None]]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(limited())


def there(
    maker: type[Env[Any, Any]], url: str | None = None, deadlines: Deadlines | None = None, **kw: Any
) -> IsolatedEnv:
    placement = Placement(kind="remote", url=url or shared_server(), deadlines=deadlines or Deadlines())
    env = make(spec(maker, placement=placement, **kw))
    assert isinstance(env, IsolatedEnv)
    return env


@asynccontextmanager
async def impostor(answer: Answer) -> AsyncIterator[str]:
    """A server of which only the handshake is right; returns its URL."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await answer(response, message)
        return response

    http = web.Server(handle)
    listener = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await http.shutdown(1.0)


async def refused(url: str) -> PalaestraError:
    """The error of a `start` there, which is one line."""
    env = there(Ledger, url)
    with pytest.raises(EnvError) as caught:
        await env.start()
    await env.close()
    assert "\n" not in str(caught.value)
    return caught.value


def test_many_at_once_over_one_client() -> None:
    async def go() -> None:
        envs = [there(Ledger) for _ in range(100)]
        firsts = await asyncio.gather(*(env.reset(seed=i) for i, env in enumerate(envs)))
        assert len({first.observation for first in firsts}) == 100
        assert len(remote._CLIENTS) == 1
        await asyncio.gather(*(env.step("a") for env in envs))
        await asyncio.gather(*(env.close() for env in envs))
        assert len(remote._CLIENTS) == 0

    run(go)


def test_a_fork_is_made_on_the_server() -> None:
    async def go() -> None:
        async with there(Able) as env:
            await env.reset(seed=3)
            await env.step("a")
            siblings = await env.fork(20)
            assert len({(await one.step("b")).observation for one in [env, *siblings]}) == 1
            await asyncio.gather(*(one.close() for one in siblings))

    run(go)


def test_nobody_listens() -> None:
    async def go() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            error = await refused(f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert isinstance(error, WorkerError)
        assert "cannot reach" in str(error)
        assert "palaestra serve" in str(error)

    run(go)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8642", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999999"])
def test_an_address_that_is_none(url: str) -> None:
    async def go() -> None:
        env = make(spec(Ledger, placement=Placement(kind="remote", url=url)))
        with pytest.raises(EnvError, match="http://") as caught:
            await env.reset(seed=0)
        assert not isinstance(caught.value, WorkerError)  # nobody need try again

    run(go)


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("--allow-arguments", token="the right token, which is long") as served:

        async def play() -> None:
            async with there(Ledger, served.url) as env:
                await env.reset(seed=0)

        async def go() -> None:
            assert "PALAESTRA_TOKEN" in str(await refused(served.url))
            monkeypatch.setenv("PALAESTRA_TOKEN", "the wrong token, which is long")
            assert "refuses the token" in str(await refused(served.url))
            monkeypatch.setenv("PALAESTRA_TOKEN", "the right token, which is long")
            await play()

        run(go)


def test_a_full_server() -> None:
    with serving("--sessions", "1") as served:

        async def go() -> None:
            async with there(Ledger, served.url) as env:
                await env.reset(seed=0)
                error = await refused(served.url)
                assert isinstance(error, WorkerError)
                assert "is full" in str(error)
                with pytest.raises(EnvError, match="no place for 2 more"):
                    await env.fork(2)
                assert (await env.step("a")).observation.startswith("1:")  # it goes on

        run(go)


def test_a_server_that_dies_in_a_step() -> None:
    with serving("--placement", "thread", "--allow-arguments") as served:

        async def go() -> None:
            env = there(Bad, served.url, how="late", seconds=30.0)
            await env.reset(seed=0)
            asyncio.get_running_loop().call_later(0.2, served.process.kill)
            with pytest.raises(WorkerError, match="the connection broke"):
                await env.step("a")
            with pytest.raises(EnvError, match="gone|reset"):
                await env.step("a")
            with pytest.raises(WorkerError, match="cannot reach"):
                await env.reset(seed=0)

        run(go)


def test_a_server_that_dies_between_two_steps() -> None:
    with serving() as served:

        async def go() -> None:
            env = there(Ledger, served.url)
            await env.reset(seed=0)
            assert await asyncio.to_thread(served.stop) == 0
            with pytest.raises(WorkerError, match=r"the server was stopped|the connection broke"):
                await env.step("a")
            await env.close()

        run(go)


def test_what_the_server_refuses_is_told() -> None:
    with serving("test/Ledger-v0", "--max-message", "1") as served:

        async def go() -> None:
            with pytest.raises(EnvError, match=r"UnknownNameError: unknown environment 'test/Able-v0'; did you mean"):
                await there(Able, served.url).reset(seed=0)
            with pytest.raises(EnvError, match="--allow-arguments"):
                await there(Ledger, served.url, length=3).reset(seed=0)
            env = there(Ledger, served.url)
            await env.reset(seed=0)
            with pytest.raises(WorkerError, match="larger than the server allows"):
                await env.step("x" * 2**21)

        run(go)


def test_an_answer_that_is_none() -> None:
    async def garbage(response: web.WebSocketResponse, message: Any) -> None:
        await response.send_bytes(b"\xc1\xc1")

    async def text(response: web.WebSocketResponse, message: Any) -> None:
        await response.send_str("hello")

    async def wrong(response: web.WebSocketResponse, message: Any) -> None:
        await response.send_bytes(encode(Value(3)))

    async def forks(response: web.WebSocketResponse, message: Any) -> None:
        await response.send_bytes(msgspec.msgpack.encode({"type": "Forked", "keys": ["x"]}))

    async def huge(response: web.WebSocketResponse, message: Any) -> None:
        await response.send_bytes(b"x" * (65 * 2**20))

    async def raw(response: web.WebSocketResponse, message: Any) -> None:
        transport = response._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(b"\xff" * 100)

    async def leaves(response: web.WebSocketResponse, message: Any) -> None:
        await response.close(code=4000, message=b"I am tired")

    expected = {
        garbage: "no answer of an environment server",
        text: "sent what nobody asked",
        wrong: "answered a Make by a Value",
        forks: "answered what nobody asked",
        huge: "the connection broke: Message size",
        raw: "the connection broke",
        leaves: "the server ended the session: I am tired",
    }

    async def go() -> None:
        for answer, message in expected.items():
            async with impostor(answer) as url:
                error = await refused(url)
                assert isinstance(error, WorkerError)
                assert message in str(error)

    run(go)


def test_another_server_is_none_of_ours() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="a bakery")

    async def go() -> None:
        http = web.Server(handle)
        listener = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
        error = await refused(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        assert "is it palaestra serve?" in str(error)
        listener.close()
        await http.shutdown(1.0)

    run(go)


def test_a_server_that_never_answers() -> None:
    async def go() -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen()
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            with pytest.raises(DeadlineError, match="create took longer"):
                await there(Ledger, url, Deadlines(create=0.2)).start()

    run(go)
    assert len(remote._CLIENTS) == 0


def test_nothing_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def go() -> None:
        async def once() -> None:
            env = there(Able)
            await env.reset(seed=0)
            forks = await env.fork(2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.0):
                    await env.step("a")
            await asyncio.gather(*(one.close() for one in forks))

        await once()
        before = descriptors()
        for _ in range(10):
            await once()
        await asyncio.sleep(0.1)
        assert descriptors() <= before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    threads = threading.active_count()
    run(go)
    assert threading.active_count() <= threads + 1  # asyncio's own, for names


def test_a_channel_answers_one_call_at_a_time() -> None:
    async def go() -> None:
        async with there(Bad, how="late", seconds=0.5) as env:
            await env.reset(seed=0)
            stepping = asyncio.create_task(env.step("a"))
            await asyncio.sleep(0.1)
            assert env._channel is not None
            with pytest.raises(EnvError, match="still busy"):
                await env._channel.call(Ask("render"))
            await stepping

    run(go)


def household(placement: Placement, on_done: Callable[[Trajectory], None] | None = None) -> list[Trajectory]:
    """Forty episodes of a random agent, ten at a time."""
    episodes = [Episode(task=task, id=f"{i}") for i, task in enumerate(load_suite("alfworld/small:test[:40]"))]
    limits = RolloutLimits(max_turns=8, concurrency=10)
    make_env = partial(make, placement=placement)
    return asyncio.run(rollout(episodes, RandomAgent(), make_env, limits, on_done=on_done))


def test_a_rollout_is_the_same_there() -> None:
    with serving() as served:
        there = household(Placement(kind="remote", url=served.url))
    here = household(Placement())
    assert {one.status for one in here} == {"ok"}
    assert [one.steps[-1].state_hash for one in there] == [one.steps[-1].state_hash for one in here]


def test_a_rollout_survives_its_server() -> None:
    with serving() as served:
        played = household(Placement(kind="remote", url=served.url), lambda _: served.process.kill())
    statuses = [one.status for one in played]
    assert statuses.count("ok") >= 1
    assert statuses.count("error") >= 29  # those that had not begun
    assert "cannot reach" in str(played[-1].error)
