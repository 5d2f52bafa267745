from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.envs import COMMANDS, InjectedEnv

from palaestra.agents.agent import Session
from palaestra.agents.scripted import OracleAgent, RandomAgent, ScriptedAgent
from palaestra.envs.core import Env
from palaestra.errors import EnvError

INFO = {"admissible_commands": COMMANDS}


def acts(session: Session, n: int) -> list[str]:
    async def play() -> list[str]:
        texts = [(await session.act("", INFO)).text for _ in range(n)]
        await session.close()
        return texts

    return asyncio.run(play())


def test_the_script_is_played_from_the_start_in_every_session() -> None:
    agent = ScriptedAgent(["a", "b"])
    assert acts(agent.session(seed=0), 2) == acts(agent.session(seed=1), 2) == ["a", "b"]
    with pytest.raises(EnvError, match="after 2 actions"):
        acts(agent.session(seed=0), 3)


def test_random_is_uniform_and_its_seeds_own() -> None:
    agent = RandomAgent()
    actions = acts(agent.session(seed=3), 4000)
    assert actions == acts(agent.session(seed=3), 4000)
    assert actions != acts(agent.session(seed=4), 4000)
    counts = Counter(actions)
    # Each count is binomial(4000, 1/4): five standard deviations are 137.
    assert all(abs(counts[command] - 1000) < 137 for command in COMMANDS)


def test_random_needs_commands() -> None:
    with pytest.raises(EnvError, match="admissible_commands"):
        asyncio.run(RandomAgent().session(seed=0).act("", {}))


def test_oracle_asks_the_environment() -> None:
    env = InjectedEnv()
    session = OracleAgent().session(seed=0, env=env)
    assert acts(session, 1) == [COMMANDS[0]]
    env.steps = 2
    assert acts(session, 1) == [COMMANDS[2]]


@pytest.mark.parametrize("env", [None, Env()])
def test_no_oracle_no_session(env: Env[str, str] | None) -> None:
    with pytest.raises(EnvError, match=r"no oracle\(\)"):
        OracleAgent().session(seed=0, env=env)
