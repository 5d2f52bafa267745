import asyncio
import copy
import pickle
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra import Env, Reset, Step
from palaestra.envs.core import SupportsOracle, SupportsRender, SupportsSnapshot, SupportsTools
from palaestra.envs.wrappers import OrderEnforcing, TimeLimit, Wrapper
from palaestra.errors import EnvError

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class Plain(Env[str, str]):
    """Counts; ends at 4."""

    colour = "blue"
    _secret = 1

    def __init__(self) -> None:
        self.count = 0
        self.resets: list[Any] = []
        self.closed = 0

    async def reset(self, **kwargs: Any) -> Reset[str]:
        self.count = 0
        self.resets.append(kwargs)
        return Reset("0", {})

    async def step(self, action: str) -> Step[str]:
        self.count += 1
        return Step(str(self.count), 1.0, self.count >= 4, False, {})

    async def close(self) -> None:
        self.closed += 1


class Able(Plain):
    """With every capability."""

    async def snapshot(self) -> int:
        return self.count

    async def restore(self, state: int) -> None:
        self.count = state

    async def oracle(self) -> str:
        return f"after {self.count}"

    def tools(self) -> list[Any]:
        return []

    async def render(self) -> str:
        return f"at {self.count}"


CAPABILITIES = (SupportsSnapshot, SupportsOracle, SupportsTools, SupportsRender)


@pytest.mark.parametrize("protocol", CAPABILITIES)
def test_capabilities_are_those_of_the_inside(protocol: Any) -> None:
    assert isinstance(TimeLimit(OrderEnforcing(Able()), 3), protocol)
    assert not isinstance(TimeLimit(OrderEnforcing(Plain()), 3), protocol)


def test_a_wrapper_may_add_a_capability() -> None:
    class Advised(Wrapper):
        async def oracle(self) -> str:
            return "mine"

    assert isinstance(Advised(Plain()), SupportsOracle)
    assert run(Wrapper(Advised(Able())).oracle()) == "mine"


def test_attributes_and_calls_are_forwarded() -> None:
    inner = Able()
    env = Wrapper(Wrapper(inner))
    assert env.colour == "blue"
    run(env.reset(seed=3, options={"a": 1}))
    assert inner.resets == [{"seed": 3, "task": None, "options": {"a": 1}}]
    assert run(env.step("x")).observation == "1"
    assert run(env.oracle()) == "after 1"
    assert run(env.render()) == "at 1"
    run(env.close())
    assert inner.closed == 1
    assert env.unwrapped is inner
    assert "Wrapper(Wrapper(" in repr(env)


@pytest.mark.parametrize("name", ["nothing", "_secret"])
def test_missing_and_private_attributes(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(Wrapper(Plain()), name)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_wrappers_copy_and_pickle(again: Any) -> None:
    env = TimeLimit(OrderEnforcing(Able()), 3)
    run(env.reset())
    run(env.step("a"))
    other = again(env)
    run(env.step("b"))
    assert run(other.step("b")).observation == "2"
    assert run(other.oracle()) == "after 2"
    assert isinstance(other, SupportsSnapshot)


def test_step_before_reset() -> None:
    with pytest.raises(EnvError, match=r"step was called before reset; call reset first"):
        run(OrderEnforcing(Plain()).step("x"))


def test_step_after_the_end() -> None:
    env = OrderEnforcing(Plain())
    run(env.reset())
    for _ in range(4):
        run(env.step("x"))
    with pytest.raises(EnvError, match="after the end of the episode"):
        run(env.step("x"))
    run(env.reset())
    run(env.step("x"))


def test_a_failed_reset_is_no_reset() -> None:
    class Failing(Plain):
        async def reset(self, **kwargs: Any) -> Reset[str]:
            if self.resets:
                raise KeyError("broken")
            return await super().reset(**kwargs)

    env = OrderEnforcing(Failing())
    run(env.reset())
    with pytest.raises(KeyError):
        run(env.reset())
    with pytest.raises(EnvError, match="before reset"):
        run(env.step("x"))


def test_the_limit_truncates_and_does_not_terminate() -> None:
    env = TimeLimit(OrderEnforcing(Plain()), 2)
    run(env.reset())
    first, second = run(env.step("x")), run(env.step("x"))
    assert (first.terminated, first.truncated) == (False, False)
    assert (second.terminated, second.truncated) == (False, True)
    with pytest.raises(EnvError, match="after the end of the episode"):
        run(env.step("x"))
    run(env.reset())
    assert not run(env.step("x")).truncated


def test_an_end_at_the_limit_is_both() -> None:
    env = TimeLimit(Plain(), 4)
    run(env.reset())
    last = [run(env.step("x")) for _ in range(4)][-1]
    assert (last.terminated, last.truncated) == (True, True)


def test_a_limit_is_positive() -> None:
    with pytest.raises(EnvError, match="at least 1"):
        TimeLimit(Plain(), 0)


@given(st.integers(1, 4), st.integers(0, 4))
def test_a_snapshot_keeps_the_counter_and_the_order(limit: int, before: int) -> None:
    """Restored into a new instance, an episode ends at the same step for the same reason."""

    async def play() -> None:
        env = TimeLimit(OrderEnforcing(Able()), limit)
        await env.reset()
        for _ in range(min(before, limit)):
            await env.step("x")
        state = await env.snapshot()
        other = TimeLimit(OrderEnforcing(Able()), limit)
        await other.restore(state)
        assert await _rest(other, limit) == await _rest(env, limit)
        await env.restore(state)
        assert env.count == min(before, limit)

    run(play())


async def _rest(env: Any, limit: int) -> list[Any]:
    outcomes: list[Any] = []
    for _ in range(limit + 1):
        try:
            outcomes.append(await env.step("x"))
        except EnvError as error:
            outcomes.append(str(error))
    return outcomes
