"""GEM on the real package, in the interpreter that was built for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from palaestra import make
from palaestra.envs.checks.supervisor import supervised, unbuilt
from palaestra.envs.episode import seen
from palaestra.envs.registry import spec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        unbuilt(spec("gem/Game-v0")),
        reason="the interpreter of gem is not built: palaestra interpreters --build gem/Game-v0",
    ),
]

LEVELS = ["game/Sokoban-v0-easy", "game/Mastermind-v0-easy", "game/Game2048-v0-easy", "rg/chain_sum", "rg/leg_counting"]


async def played(env: Any, level: str, seed: int) -> list[str]:
    step: Any = await env.reset(seed=seed)
    links, score = [seen("", step)], 0.0
    for turn in range(6):
        listed = step.info.get("admissible_commands")
        step = await env.step(listed[turn % 4] if listed else f"I think \\boxed{{{turn + 1} {turn}}}")
        links.append(seen("", step))
        score += step.reward
        assert step.info["score"] == pytest.approx(score)
        assert step.info["task_type"] == level
        if step.terminated or step.truncated:
            break
    return links


@pytest.mark.parametrize("level", LEVELS)
def test_an_episode_is_the_same_again(level: str) -> None:
    async def go() -> None:
        async with make("gem/Game-v0", level=level) as env:
            one, other = await played(env, level, 1), await played(env, level, 2)
            assert one == await played(env, level, 1)
            assert one[0] != other[0]
            assert len(one) > 1

    asyncio.run(go())


def test_a_right_answer_is_a_success() -> None:
    """The mean of the bounds finds a number below eleven within four guesses."""

    async def go() -> None:
        async with make("gem/Game-v0", level="game/GuessTheNumber-v0-easy") as env:
            for seed in range(3):
                await env.reset(seed=seed)
                least, most, done = 1, 10, False
                while not done:
                    guess = (least + most) // 2
                    step = await env.step(f"\\boxed{{{guess}}}")
                    done = step.terminated or step.truncated
                    least, most = (guess + 1, most) if "higher" in step.observation else (least, guess - 1)
                assert step.info["success"], step.observation
                assert step.info["score"] == pytest.approx(1.0)

    asyncio.run(go())


HOSTILE: list[Any] = [
    "",
    "\\boxed{",
    "{" * 300,
    "9" * 1_000_000,
    "\\boxed{9^9^9^9}",
    "\\boxed{²}",
    "\\boxed{\x00\x1b[2J}",
    "\\boxed{" + "(" * 300 + "}",
    None,
    7,
]


@pytest.mark.parametrize("level", ["game/Sokoban-v0-easy", "rg/chain_sum", "rg/prime_factorization"])
def test_a_hostile_answer_is_answered(level: str) -> None:
    async def go() -> None:
        async with make("gem/Game-v0", level=level) as env:
            for action in HOSTILE:
                await env.reset(seed=1)
                step = await env.step(action)
                assert step.reward <= 0.1
                assert len(step.observation.encode()) < 5_000

    asyncio.run(go())


def test_it_keeps_the_contract() -> None:
    found = supervised(spec("gem/Game-v0"), episodes=2, max_steps=15)
    assert found.ok, str(found)
    assert found.determinism == "exact"
