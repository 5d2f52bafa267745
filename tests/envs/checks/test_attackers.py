"""Nonsense agents: what they earn where answers are judged, and where anything is believed."""

import asyncio
from typing import Any

import pytest

from palaestra.envs.checks.attackers import Earned, attack, attackers
from palaestra.envs.core import Env, Reset, Step, Verdict
from palaestra.envs.registry import register


class Believing(Env[str, str]):
    """Anything with a letter in it is right; the verdict comes at the end."""

    async def reset(self, **_: Any) -> Reset[str]:
        self.right = False
        return Reset("What?", {})

    async def step(self, action: str) -> Step[str]:
        self.right = any(letter.isalpha() for letter in action)
        return Step("", 0.0, True, False, {})

    async def verify(self) -> Verdict:
        return Verdict(float(self.right), self.right, {})


def earned(id: str, name: str, episodes: int = 4) -> Earned:
    return asyncio.run(attack(id, name, (), episodes))


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register("attackers/Believing-v0", Believing)


def test_who_is_believed_is_seen() -> None:
    found = earned("attackers/Believing-v0", "random letters")
    assert found == Earned("random letters", 4, 4, 1.0)
    assert not found.ok
    assert earned("attackers/Believing-v0", "always ''").ok


def test_numbers_are_not_solved_by_nonsense() -> None:
    for name in attackers():
        found = earned("countdown/Numbers-v0", name, episodes=2)
        assert found.ok, found
        assert not found.failed
