"""The environment contract, wherever the environment runs."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.interpreters import own_interpreter
from support.isolated_envs import Able, Bad, GlobalDice, Ledger, spec
from support.processes import alive, command, descendants, eventually
from support.serving import shared_server

from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import ScriptedAgent
from palaestra.envs.core import (
    Env,
    Step,
    SupportsOracle,
    SupportsRender,
    SupportsSnapshot,
    SupportsTools,
    SupportsVerify,
    Verdict,
)
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import DeadlineError, EnvError

T = TypeVar("T")


@contextmanager
def served() -> Iterator[Placement]:
    """A server whose environments run in threads, so that those that hang there hold up nobody."""
    pytest.importorskip("aiohttp")
    yield Placement(kind="remote", url=shared_server())


KINDS: dict[str, Callable[[], AbstractContextManager[Placement]]] = {
    "inline": lambda: nullcontext(Placement()),
    "thread": lambda: nullcontext(Placement(kind="thread")),
    "process": lambda: nullcontext(Placement(kind="process")),
    "interpreter": own_interpreter,
    "remote": served,
}
"""How to get a placement of each kind; what has to run for it runs inside."""

APART = [kind for kind in KINDS if kind != "inline"]
"""Deadlines are enforced from outside, so not inline."""

BY_MESSAGE = [kind for kind in APART if kind != "thread"]
"""A thread shares its objects with the others."""


@pytest.fixture(params=KINDS)
def placement(request: pytest.FixtureRequest) -> Iterator[Placement]:
    with KINDS[request.param]() as given:
        yield given


@pytest.fixture(params=APART)
def apart(request: pytest.FixtureRequest) -> Iterator[Placement]:
    with KINDS[request.param]() as given:
        yield given


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def hasty(placement: Placement, **seconds: float) -> Placement:
    """With short deadlines."""
    return msgspec.structs.replace(placement, deadlines=Deadlines(**seconds))


async def play(env: Env[Any, Any], actions: list[str]) -> list[Step[Any]]:
    return [await env.step(action) for action in actions]


def test_an_episode_is_the_same_everywhere(placement: Placement) -> None:
    async def episode(where: Placement) -> list[Any]:
        async with make(spec(Ledger, length=4, placement=where)) as env:
            task = Task(env="test/Ledger-v0", name="one", params={"a": [1, 2.5, None, "ü"]}, seed=3)
            first = await env.reset(seed=5, task=task, options={"x": 1})
            return [first, *await play(env, ["a", "b", "c", "d"])]

    assert run(episode(placement)) == run(episode(Placement()))


def test_the_order_is_enforced(placement: Placement) -> None:
    async def go() -> None:
        env = make(spec(Ledger, length=2, placement=placement))
        with pytest.raises(EnvError, match="before reset"):
            await env.step("a")
        await env.reset(seed=0)
        await play(env, ["a", "b"])
        with pytest.raises(EnvError, match="after the end"):
            await env.step("c")
        await env.reset(seed=0)
        assert (await env.step("c")).observation.startswith("1:")
        await env.close()
        await env.close()

    run(go())


def test_close_without_reset(placement: Placement) -> None:
    run(make(spec(Ledger, placement=placement)).close())


def test_a_seed_fixes_the_episode(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=placement)) as env:
            one = [await env.reset(seed=1), *await play(env, ["a", "b"])]
            two = [await env.reset(seed=2), *await play(env, ["a", "b"])]
            again = [await env.reset(seed=1), *await play(env, ["a", "b"])]
        assert one == again
        assert one != two

    run(go())


def test_capabilities_cross(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Able, placement=placement)) as env:
            await env.reset(seed=0)
            assert isinstance(env, SupportsOracle)
            assert isinstance(env, SupportsVerify)
            assert isinstance(env, SupportsRender)
            assert isinstance(env, SupportsTools)
            await play(env, ["a", "b"])
            assert await env.oracle() == "do 2"
            assert await env.verify() == Verdict(0.5, True, {"steps": 2})
            assert await env.render() == "<2>"
            assert env.tools()[0]["function"]["name"] == "write"
        async with make(spec(Ledger, placement=placement)) as env:
            await env.reset(seed=0)
            for capability in (SupportsOracle, SupportsVerify, SupportsRender, SupportsTools, SupportsSnapshot):
                assert not isinstance(env, capability)

    run(go())


def test_an_environment_that_waits(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Ledger, wait=0.01, placement=placement)) as env:
            await env.reset(seed=0)
            assert len(await play(env, ["a", "b"])) == 2

    run(go())


@pytest.mark.parametrize("when", ["create", "reset", "step"])
def test_errors_cross(placement: Placement, when: str) -> None:
    async def go() -> None:
        env = make(spec(Bad, how="raise", when=when, placement=placement))
        await env.reset(seed=0)
        await env.step("a")

    with pytest.raises((EnvError, ValueError), match="the door is"):
        run(go())


WRONG = {
    "wrong_type": ".",
    "wrong_info": ".",
    "wrong_reward": ".",
    "wrong_key": "an info has the key 1, a int; make it a str",
    "no_number": "a reward is nan; make it a finite number",
    "endless_reward": "a reward is -inf; make it a finite number",
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_types_are_told(apart: Placement, how: str) -> None:
    async def go() -> None:
        async with make(spec(Bad, how=how, placement=apart)) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match=WRONG[how]):
                await env.step("a")

    run(go())


@pytest.mark.parametrize("apart", BY_MESSAGE, indirect=True)
@pytest.mark.parametrize("how", ["unserialisable", "endless", "huge"])
def test_what_no_message_can_carry_is_told(apart: Placement, how: str) -> None:
    async def go() -> None:
        async with make(spec(Bad, how=how, placement=apart)) as env:
            await env.reset(seed=0)
            with pytest.raises(EnvError, match=r"JSON|limit"):
                await env.step("a")

    run(go())


def test_noise_on_stdout_harms_nothing(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Bad, how="print", placement=placement)) as env:
            await env.reset(seed=0)
            assert (await env.step("a")).observation == "well"
            assert (await env.step("a")).observation == "well"

    run(go())


@pytest.mark.parametrize("when", ["reset", "step"])
def test_deadlines_are_enforced(apart: Placement, when: str) -> None:
    async def go() -> None:
        where = hasty(apart, **{when: 0.3})
        env = make(spec(Bad, how="late", when=when, seconds=2.0, placement=where))
        if when == "step":
            await env.reset(seed=0)
        with pytest.raises(DeadlineError, match=f"{when} took longer than 0.3 s"):
            await (env.step("a") if when == "step" else env.reset(seed=0))
        await env.close()

    run(go())


def test_creation_has_a_deadline(apart: Placement) -> None:
    async def go() -> None:
        await make(spec(Ledger, placement=apart)).reset(seed=0)  # whatever starts only once has started
        env = make(spec(Bad, how="late", when="create", seconds=2.0, placement=hasty(apart, create=0.5)))
        with pytest.raises(DeadlineError, match="create took longer"):
            await env.start()
        await env.close()

    run(go())


def test_a_hung_close_ends_all_the_same(apart: Placement) -> None:
    async def go() -> None:
        env = make(spec(Bad, how="late", when="close", seconds=2.0, placement=hasty(apart, close=0.3)))
        await env.reset(seed=0)
        async with asyncio.timeout(1.5):
            await env.close()

    run(go())


def test_after_a_deadline_reset_begins_anew(apart: Placement) -> None:
    async def go() -> None:
        env = make(spec(Bad, how="late", seconds=2.0, placement=hasty(apart, step=0.2)))
        await env.reset(seed=0)
        with pytest.raises(DeadlineError):
            await env.step("a")
        with pytest.raises(EnvError):
            await env.step("a")
        assert (await env.reset(seed=0)).observation == "hello"
        await env.close()

    run(go())


def test_cancelling_a_step_ends_the_episode(apart: Placement) -> None:
    async def go() -> None:
        env = make(spec(Bad, how="late", seconds=2.0, placement=apart))
        await env.reset(seed=0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await env.step("a")
        with pytest.raises(EnvError):
            await env.step("a")
        await env.close()

    run(go())


def test_a_fork_equals_the_continuation(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Able, placement=placement)) as env:
            await env.reset(seed=4)
            await play(env, ["a", "b"])
            siblings = await env.fork(3)
            there = [await play(sibling, ["c", "d"]) for sibling in siblings]
            here = await play(env, ["c", "d"])
            assert there == [here] * 3
            assert await siblings[0].oracle() == "do 4"  # type: ignore[attr-defined]
            assert siblings[0].tools() == env.tools()  # type: ignore[attr-defined]
            for sibling in siblings:
                await sibling.close()

    run(go())


def test_forks_of_forks(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Ledger, length=3, placement=placement)) as env:
            await env.reset(seed=4)
            (child,) = await env.fork()
            await child.step("a")
            (grandchild,) = await child.fork()
            await child.close()
            assert (await grandchild.step("b")).observation == (await play(env, ["a", "b"]))[-1].observation
            assert (await grandchild.step("c")).terminated
            with pytest.raises(EnvError, match="after the end"):
                await grandchild.step("d")
            await grandchild.reset(seed=1)
            await grandchild.close()

    run(go())


def test_forking_needs_an_episode(placement: Placement) -> None:
    async def go() -> None:
        async with make(spec(Ledger, placement=placement)) as env:
            with pytest.raises(EnvError, match="no episode"):
                await env.fork()
            await env.reset(seed=0)
            assert await env.fork(0) == []
            with pytest.raises(EnvError, match="-1"):
                await env.fork(-1)

    run(go())


def test_global_randomness_goes_on_in_a_fork() -> None:
    async def go() -> None:
        async with make(spec(GlobalDice, placement=Placement(kind="process"))) as env:
            await env.reset(seed=4)
            await env.step("a")
            siblings = await env.fork(2)
            there = [await play(sibling, ["b", "c"]) for sibling in siblings]
            assert there == [await play(env, ["b", "c"])] * 2
            for sibling in siblings:
                await sibling.close()

    run(go())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz")), max_size=16))
def test_siblings_never_affect_each_other(placement: Placement, schedule: list[tuple[int, str]]) -> None:
    """Steps of four siblings in any order give each what it would have got alone."""

    async def interleaved() -> list[list[Step[Any]]]:
        seen: list[list[Step[Any]]] = [[] for _ in range(4)]
        async with make(spec(Ledger, placement=placement)) as env:
            await env.reset(seed=9)
            await env.step("a")
            siblings = [env, *await env.fork(3)]
            for who, action in schedule:
                seen[who].append(await siblings[who].step(action))
            for sibling in siblings[1:]:
                await sibling.close()
        return seen

    async def alone(actions: list[str]) -> list[Step[Any]]:
        async with make(spec(Ledger)) as env:
            await env.reset(seed=9)
            return (await play(env, ["a", *actions]))[1:]

    assert run(interleaved()) == [run(alone([a for who, a in schedule if who == i])) for i in range(4)]


HARD = [kind for kind in KINDS if kind in ("process", "interpreter")]
"""Processes of their own: whatever happens in there, they can be ended."""


@pytest.fixture(params=HARD)
def hard(request: pytest.FixtureRequest) -> Iterator[Placement]:
    with KINDS[request.param]() as given:
        yield given


FATES = {
    "raise": ("error", "the door is"),
    "wrong_type": ("error", "return Step"),
    "wrong_info": ("error", "dict"),
    "wrong_reward": ("error", "could not convert"),
    "unserialisable": ("error", "JSON"),
    "endless": ("error", "JSON"),
    "huge": ("error", "over the limit"),
    "print": ("ok", ""),
    "fork": ("ok", ""),
    "subprocess": ("ok", ""),
    "daemon": ("ok", ""),
    "orphan_exit": ("error", "exited with code 3"),
    "allocate": ("error", "more than its limit of 200 MB"),
    "busy": ("timeout", "step took longer"),
    "late": ("timeout", "step took longer"),
    "hang": ("timeout", "step took longer"),
    "deaf": ("timeout", "step took longer"),
    "os_exit": ("error", "exited with code 0"),
    "sys_exit": ("error", "SystemExit"),
    "interrupt": ("error", "KeyboardInterrupt"),
    "base": ("error", "BaseException: bare"),
    "cancelled": ("error", "CancelledError"),
    "segfault": ("error", "SIGSEGV"),
    "close_files": ("error", "worker process"),
}
"""What an episode's record says when its environment misbehaves so in a step."""


def test_bad_environments_end_no_other_episode(hard: Placement) -> None:
    """All of them at once, beside good ones: each becomes a status, and nothing is left of any."""
    where = msgspec.structs.replace(
        hard, memory_bytes=200_000_000, deadlines=Deadlines(step=3.0, create=60.0, reset=60.0, close=3.0)
    )
    specs = {f"test/{how}-v0": spec(Bad, how=how, seconds=60.0, placement=where) for how in FATES}
    specs["test/Good-v0"] = spec(Ledger, length=5, wait=0.2, placement=where)
    episodes = [Episode(task=Task(env=name, name=name), id=name) for name in specs]
    episodes += [Episode(task=Task(env="test/Good-v0", name="good"), id=f"good {i}") for i in range(4)]
    before = descendants()
    done = run(
        rollout(
            episodes,
            ScriptedAgent(["go"] * 5),
            lambda name: make(specs[name]),
            RolloutLimits(max_turns=5, retries=0),
        )
    )
    for how, trajectory in zip(FATES, done, strict=False):
        status, words = FATES[how]
        assert (trajectory.status, words in trajectory.error) == (status, True), (how, trajectory.error)
    assert [(good.status, len(good.steps), good.success) for good in done[len(FATES) :]] == [("ok", 5, True)] * 5
    left = eventually(
        lambda: [command(pid) for pid in descendants() - before], lambda names: "sleep 60.0" not in str(names)
    )
    assert "sleep 60.0" not in str(left)


@pytest.mark.parametrize("when", ["create", "reset", "close"])
@pytest.mark.parametrize("how", ["os_exit", "sys_exit", "interrupt", "segfault"])
def test_dying_at_any_time_is_told_or_harmless(hard: Placement, how: str, when: str) -> None:
    async def go() -> None:
        env = make(spec(Bad, how=how, when=when, placement=hard))
        try:
            await env.reset(seed=0)
            assert when == "close"
        except EnvError as error:
            assert when != "close"
            assert any(word in str(error) for word in ("exited", "SystemExit", "Interrupt", "SIGSEGV"))  # noqa: PT017
        await env.close()

    run(go())


@pytest.mark.parametrize("how", ["fork", "subprocess", "daemon"])
def test_what_an_environment_started_ends_with_it(hard: Placement, how: str) -> None:
    async def go() -> int:
        env = make(spec(Bad, how=how, placement=msgspec.structs.replace(hard, reuse=1)))
        await env.reset(seed=0)
        child: int = (await env.step("a")).info["child"]
        assert alive(child)
        await env.close()
        return child

    child = run(go())
    assert not eventually(lambda: alive(child), lambda living: not living)


def test_cancelling_kills_what_does_not_listen(hard: Placement) -> None:
    async def go() -> int:
        env = make(spec(Bad, how="busy", seconds=60.0, placement=hard))
        pid = int((await env.reset(seed=0)).info["pid"])
        step = asyncio.create_task(env.step("a"))
        await asyncio.sleep(0.1)
        assert alive(pid)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        await env.close()
        return pid

    pid = run(go())
    assert not eventually(lambda: alive(pid), lambda living: not living)


def test_many_at_once(hard: Placement) -> None:
    async def episode(seed: int) -> list[Step[Any]]:
        async with make(spec(Ledger, placement=hard)) as env:
            await env.reset(seed=seed)
            return await play(env, ["a", "b", "c"])

    async def all_at_once() -> list[list[Step[Any]]]:
        return await asyncio.gather(*(episode(seed) for seed in range(32)))

    together = run(all_at_once())
    assert together[7] == run(episode(7))
    assert len({steps[0].observation for steps in together}) == 32
