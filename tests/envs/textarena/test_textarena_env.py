"""TextArena's games on the real package: every one of them, hostile moves, global generators, another version."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("textarena", reason="textarena is not installed: pip install 'palaestra[textarena]'")

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.tasks import Task
from palaestra.envs.textarena.env import LONGEST, TextArenaEnv
from palaestra.envs.textarena.games import GAMES, REFUSED
from palaestra.envs.textarena.moves import draw
from palaestra.errors import DataError, EnvError, MissingExtraError

pytestmark = pytest.mark.integration

SLOW = {"Sudoku-v0-hard"}
"""Takes seconds to begin."""
QUICK = sorted(set(GAMES) - SLOW)


def move_of(env: Any, info: dict[str, Any], generator: random.Random, game: str) -> str:
    commands: list[str] = info.get("admissible_commands") or []
    templates = GAMES[game].moves
    return generator.choice(commands) if commands else draw(templates, generator) if templates else "[nothing]"


def globals_now() -> Any:
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002


async def played(env: Any, game: str, seed: int, turns: int = 40) -> list[str]:
    """An episode of drawn moves as texts; checks what holds for every game."""
    generator = random.Random(seed)
    first = await env.reset(seed=seed)
    assert first.observation
    links, info, score = [seen("", first)], first.info, 0.0
    for _ in range(turns):
        listed = "admissible_commands" in info
        step = await env.step(move_of(env, info, generator, game))
        links.append(seen("", step))
        info, score = step.info, score + step.reward
        assert not (listed and info["invalid"]), f"{game} refused a move that it listed: {step.observation}"
        assert info["score"] == score
        assert -1 <= step.reward <= 1
        if step.terminated:
            assert info["success"] == (step.reward >= 1)
            break
        assert step.reward == 0
    return links


@pytest.mark.parametrize("game", QUICK)
def test_every_game_is_played_the_same_twice(game: str) -> None:
    async def go() -> None:
        for seed in range(GAMES[game].players):
            one = await played(TextArenaEnv(game), game, seed)
            assert one == await played(TextArenaEnv(game), game, seed)

    before = globals_now()
    asyncio.run(go())
    assert globals_now() == before


def test_the_table_holds_every_id_of_the_package() -> None:
    from textarena.envs.registration import ENV_REGISTRY

    plain = {id for id in ENV_REGISTRY if not id.endswith(("-raw", "-train"))}
    assert plain == set(GAMES) | set(REFUSED)


@pytest.mark.parametrize("game", ["TicTacToe-v0", "2048-v0", "KuhnPoker-v0", "Blackjack-v0", "ThreePlayerGOPS-v0"])
def test_it_keeps_the_contract(game: str) -> None:
    import msgspec

    from palaestra.envs.registry import spec

    report = check_env(msgspec.structs.replace(spec("textarena/Game-v0"), kwargs={"game": game}), seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


HOSTILE: list[Any] = [
    "",
    "[]",
    "[" * 300,
    "[0" * 5000,
    "9" * 1_000_000,
    f"[{'9' * 10_000}]",
    "[９ ９]",
    "[²]",
    "[\x00\x1b[2J]",
    "\ud800[1]",
    "[-1]",
    "[1e99]",
    "[0 0 0 0 0 0 0 0]",
    "[up] [down]",
    None,
    7,
    ["[0]"],
]


@pytest.mark.parametrize("game", QUICK)
def test_a_hostile_move_is_answered(game: str) -> None:
    async def go() -> None:
        env = TextArenaEnv(game)
        for action in HOSTILE:
            await env.reset(seed=1)
            step = await env.step(action)
            assert isinstance(step.observation, str)
            step.observation.encode()
            assert step.reward <= 0 or not step.info["invalid"] or step.terminated
            assert len(step.observation) < 5 * LONGEST

    asyncio.run(go())


def test_what_is_too_long_is_not_shown_to_the_game() -> None:
    async def go() -> None:
        env = TextArenaEnv("TicTacToe-v0", max_turns=2)
        await env.reset(seed=0)
        step = await env.step("[0]" + "x" * 1_000_000)
        assert step.info["invalid"]
        assert "1000003 characters" in step.observation
        assert not step.truncated
        assert (await env.step("x" * 1_000_000)).truncated

    asyncio.run(go())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["TicTacToe-v0", "2048-v0", "Briscola-v0", "PigDice-v0", "Surround-v0-large", "ConnectFour-v0"]),
    st.integers(0, 10_000),
    st.data(),
)
def test_siblings_equal_the_episode_that_they_left(game: str, seed: int, data: Any) -> None:
    """Interleaved in any way, though all of them draw from the same global generators."""

    async def go() -> None:
        async with make("textarena/Game-v0", game=game) as env, make("textarena/Game-v0", game=game) as alone:
            step: Any = await alone.reset(seed=seed)
            await env.reset(seed=seed)
            generator, commands, expected = random.Random(seed), [], []
            while len(commands) < 8 and not (commands and step.terminated):
                commands.append(move_of(alone, step.info, generator, game))
                step = await alone.step(commands[-1])
                expected.append(seen("", step))
            half = len(commands) // 2
            for command in commands[:half]:
                await env.step(command)
            siblings = [env, *await env.fork(2), *await fork_by_replay(env, 1)]
            went: list[list[str]] = [[] for _ in siblings]
            for i in data.draw(st.permutations([i for i in range(4) for _ in commands[half:]])):
                went[i].append(seen("", await siblings[i].step(commands[half + len(went[i])])))
            assert went == [expected[half:]] * 4

    asyncio.run(go())


def test_seeds_take_the_seats_in_turn_and_a_task_may_choose() -> None:
    async def begin(seed: int, **params: Any) -> str:
        env = TextArenaEnv()
        task = Task(env="textarena/Game-v0", name="t", seed=seed, params={"game": "TicTacToe-v0", **params})
        return (await env.reset(task=task)).observation

    assert "You are Player 0" in asyncio.run(begin(4))
    second = asyncio.run(begin(5))
    assert "You are Player 1" in second
    assert "[Player 0] [" in second
    assert "You are Player 1" in asyncio.run(begin(4, seat=1))
    for wrong in ({"seat": 2}, {"seat": "x"}, {"max_turns": 0}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            asyncio.run(begin(4, **wrong))


def test_admissible_commands_are_found_by_trying_where_asked_for() -> None:
    async def go(admissible: bool) -> Any:
        env = TextArenaEnv("ConnectFour-v0", admissible=admissible)
        first = await env.reset(seed=0)
        for _ in range(6):
            if first.info.get("admissible_commands"):
                step = await env.step(first.info["admissible_commands"][0])
                assert not step.info["invalid"]
        return first.info.get("admissible_commands")

    assert asyncio.run(go(False)) is None
    assert asyncio.run(go(True)) == [f"[col {column}]" for column in range(7)]


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[textarena\]"):
        asyncio.run(TextArenaEnv().reset(seed=0))


FAKES = {
    "no registry": "",
    "no such game": "ENV_REGISTRY = {}",
    "another reset": """
class Spec: entry_point, kwargs = "textarena.envs.registration:Game", {}
class Game:
    def reset(self, players): pass
ENV_REGISTRY = {"TicTacToe-v0": Spec}
""",
    "another state": """
class Spec: entry_point, kwargs = "textarena.envs.registration:Game", {}
class Game:
    state = None
    def reset(self, num_players, seed): pass
ENV_REGISTRY = {"TicTacToe-v0": Spec}
""",
    "another shape of a step": """
class State:
    observations, error_count, current_player_id, game_info = {0: [], 1: []}, 0, 0, {0: {"invalid_move": False}}
class Spec: entry_point, kwargs = "textarena.envs.registration:Game", {}
class Game:
    state = State
    def reset(self, num_players, seed): pass
    def step(self, action): return "observation", 0.0, True, False, {}
ENV_REGISTRY = {"TicTacToe-v0": Spec}
""",
}


@pytest.mark.parametrize("fake", FAKES)
def test_another_version_is_named(tmp_path: Path, fake: str) -> None:
    """A package of the same name in front of the real one, in a process of its own."""
    folder = tmp_path / "textarena" / "envs"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "registration.py").write_text(FAKES[fake])
    info = tmp_path / "textarena-9.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: textarena\nVersion: 9.1\n")
    code = (
        f"import sys, asyncio; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from palaestra.envs.textarena.env import TextArenaEnv\n"
        "async def go():\n"
        "    env = TextArenaEnv()\n"
        "    await env.reset(seed=0)\n"
        "    await env.step('[0]')\n"
        "asyncio.run(go())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("palaestra.errors.EnvError: textarena 9.1 is not as expected ("), done.stderr
    assert last.endswith("supported is 0.7.4: pip install 'textarena==0.7.4'")


def test_an_error_of_the_package_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from textarena.envs.registration import ENV_REGISTRY

    monkeypatch.setitem(ENV_REGISTRY["TicTacToe-v0"].kwargs, "no_such", 1)
    with pytest.raises(EnvError, match=r"textarena's TicTacToe-v0 failed: TypeError"):
        asyncio.run(TextArenaEnv().reset(seed=0))
