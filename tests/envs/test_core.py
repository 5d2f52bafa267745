import asyncio
from typing import Any

import pytest

from palaestra import Env, Reset, Step
from palaestra.envs.core import SupportsOracle, SupportsRender, SupportsSnapshot, SupportsTools


class Closing(Env[str, str]):
    closed = 0

    async def close(self) -> None:
        self.closed += 1


def test_reset_and_step_unpack_in_gymnasiums_order() -> None:
    observation, info = Reset("seen", {"a": 1})
    assert (observation, info) == ("seen", {"a": 1})
    step = Step("seen", 0.5, False, True, {"a": 1})
    assert tuple(step) == ("seen", 0.5, False, True, {"a": 1})
    assert (step.reward, step.terminated, step.truncated) == (0.5, False, True)


def test_async_with_closes_even_after_an_error() -> None:
    env = Closing()

    async def fail() -> None:
        async with env:
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(fail())
    assert env.closed == 1


def test_unwrapped_is_the_environment_itself() -> None:
    env = Closing()
    assert env.unwrapped is env


def test_reset_and_step_must_be_written() -> None:
    with pytest.raises(NotImplementedError):
        asyncio.run(Env().reset())
    with pytest.raises(NotImplementedError):
        asyncio.run(Env().step("x"))
    asyncio.run(Env().close())


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        (SupportsSnapshot, ["snapshot", "restore"]),
        (SupportsOracle, ["oracle"]),
        (SupportsTools, ["tools"]),
        (SupportsRender, ["render"]),
    ],
)
def test_a_capability_is_having_the_methods(protocol: Any, names: list[str]) -> None:
    able = type("Able", (Env,), {name: lambda self: None for name in names})
    assert isinstance(able(), protocol)
    assert not isinstance(Env(), protocol)
    if len(names) > 1:
        half = type("Half", (Env,), {names[0]: lambda self: None})
        assert not isinstance(half(), protocol)
