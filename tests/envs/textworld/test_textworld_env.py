"""TextWorld's games: generated once, played, advised on, and by many threads at once."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("textworld", reason="not installed: pip install 'palaestra[textworld]'")

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.registry import spec
from palaestra.envs.tasks import Task
from palaestra.envs.textworld import shelf
from palaestra.envs.textworld.env import TextWorldEnv
from palaestra.envs.textworld.oracle import Oracle
from palaestra.envs.textworld.recipe import of_challenge, of_level
from palaestra.envs.textworld.story import UNKNOWN, Story
from palaestra.errors import DataError, EnvError, MissingExtraError

pytestmark = pytest.mark.integration
ID = "textworld/Game-v0"


def game_task(**params: Any) -> Task:
    return Task(env=ID, name="t", params=params)


def test_it_keeps_the_contract() -> None:
    report = check_env(msgspec.structs.replace(spec(ID), kwargs={"games": 2}), seeds=(0, 1))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_a_game_is_told_without_banner_and_prompt() -> None:
    async def play() -> None:
        env = TextWorldEnv()
        first = await env.reset(seed=1)
        assert first.observation.startswith("You are hungry!")
        assert "$$$" not in first.observation
        assert not first.observation.endswith("0/4")
        assert first.info["max_score"] > 0
        await env.close()

    asyncio.run(play())


def test_rewards_add_up_to_the_score() -> None:
    async def play() -> None:
        env = TextWorldEnv()
        await env.reset(seed=0)
        total = 0.0
        while True:
            step = await env.step(await env.oracle())
            assert not step.info["invalid"]
            total += step.reward
            if step.terminated or step.truncated:
                break
        assert step.info["success"]
        assert total == step.info["score"] == step.info["max_score"]
        await env.close()

    asyncio.run(play())


@pytest.mark.parametrize("challenge", ["coin_collector", "treasure_hunter"])
def test_the_oracle_finds_back_from_where_it_was_left(challenge: str) -> None:
    async def play() -> None:
        env = TextWorldEnv()
        task = game_task(challenge=challenge, settings={"level": 5}, seed=3)
        for seed in range(3):
            step: Any = await env.reset(task=task)
            generator = random.Random(seed)
            for _ in range(6):
                if step.info["success"]:
                    break
                step = await env.step(generator.choice(step.info["admissible_commands"]))
            while not (isinstance(step, tuple) and len(step) == 5 and (step.terminated or step.truncated)):
                step = await env.step(await env.oracle())
            assert step.info["success"]
        await env.close()

    asyncio.run(play())


def test_the_walkthrough_alone_wins_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in large cooking games, for which TextWorld knows no plan."""
    monkeypatch.setattr(Story, "policy", ())

    async def play() -> None:
        env = TextWorldEnv()
        step: Any = await env.reset(seed=0)
        await env.step("look")
        while not (len(step) == 5 and (step.terminated or step.truncated)):
            step = await env.step(await env.oracle())
        assert step.info["success"]
        await env.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "command",
    ["quit", "SAVE", "script", "restart", "tw-print", "look. save", "look, quit", "take knife then quit", "g", ""],
)
def test_commands_about_the_interpreter_are_not_known(command: str, tmp_path: Path) -> None:
    async def play() -> None:
        env = TextWorldEnv()
        first = await env.reset(seed=0)
        step = await env.step(command)
        assert step.observation == UNKNOWN
        assert step.info["invalid"]
        assert not step.terminated
        assert step.info["admissible_commands"] == first.info["admissible_commands"]
        await env.close()

    asyncio.run(play())


def test_nonsense_is_answered_and_counts() -> None:
    async def play() -> None:
        env = TextWorldEnv()
        params = {"level": "cooking-easy", "split": "train", "index": 0, "max_turns": 4}
        await env.reset(task=game_task(**params))
        for action in ("\ud800\0", "x" * 10_000, 7):
            step = await env.step(action)  # type: ignore[arg-type]
            assert step.info["invalid"]
        step = await env.step("Examine  Cookbook")
        assert not step.info["invalid"]
        assert "Recipe" in step.observation
        assert step.truncated
        await env.close()

    asyncio.run(play())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1), st.randoms(use_true_random=False))
def test_siblings_equal_the_episode_that_they_left(seed: int, generator: Any) -> None:
    async def play() -> None:
        here = {"placement": "inline", "games": 2}
        async with make(ID, **here) as env, make(ID, **here) as alone:
            step: Any = await alone.reset(seed=seed)
            commands, expected = [], []
            while len(commands) < 8 and not (commands and step.terminated):
                commands.append(generator.choice(step.info["admissible_commands"]))
                step = await alone.step(commands[-1])
                expected.append(seen("", step))
            half = len(commands) // 2
            await env.reset(seed=seed)
            for command in commands[:half]:
                await env.step(command)
            siblings = [env, *await env.fork(3)]
            went: list[list[str]] = [[] for _ in siblings]
            order = [i for i in range(len(siblings)) for _ in commands[half:]]
            generator.shuffle(order)
            for i in order:
                went[i].append(seen("", await siblings[i].step(commands[half + len(went[i])])))
            assert went == [expected[half:]] * len(siblings)
            for sibling in siblings:
                await sibling.close()

    asyncio.run(play())


def test_threads_do_not_touch_each_other() -> None:
    games = [shelf.game_file(of_level("cooking-easy", "train", index)) for index in (0, 1)]

    def play(game: Path) -> list[Any]:
        story, oracle = Story(game), Oracle(game)
        turns, commands = [story.begin()], list[str]()
        while not (turns[-1].won or turns[-1].lost):
            commands.append(oracle.advise(commands))
            turns.append(story.do(commands[-1]))
        story.close()
        oracle.close()
        return turns

    expected = [play(game) for game in games]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(play, games * 6)) == expected * 6


def test_a_game_is_made_once_by_whoever_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    made = []
    run = shelf._run

    def counted(wanted: bytes, folder: str) -> None:
        made.append(folder)
        run(wanted, folder)

    monkeypatch.setattr(shelf, "_run", counted)
    recipe = of_challenge("coin_collector", {"level": 2}, 1)
    with ThreadPoolExecutor(4) as pool:
        games = set(pool.map(shelf.game_file, [recipe] * 4))
    assert len(games) == len(made) == 1
    [game] = games
    assert sorted(path.name for path in game.parent.iterdir()) == ["game.json", "game.z8"]
    assert not list(game.parent.parent.glob(".making-*"))


def test_what_the_generator_cannot_make_is_an_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    monkeypatch.setattr(shelf.generate, "__file__", str(tmp_path / "absent.py"))
    with pytest.raises(EnvError, match="cannot make this game"):
        shelf.game_file(of_challenge("coin_collector", {"level": 2}, 1))
    assert not [path for path in (tmp_path / "textworld").iterdir() if path.suffix != ".lock"]


def test_a_game_file_of_ones_own(tmp_path: Path) -> None:
    game = shelf.game_file(of_level("cooking-easy", "train", 0))
    own = tmp_path / "mine.z8"
    shutil.copy(game, own)
    shutil.copy(game.with_suffix(".json"), own.with_suffix(".json"))

    async def start(**params: Any) -> Any:
        env = TextWorldEnv()
        try:
            return await env.reset(task=game_task(**params))
        finally:
            await env.close()

    generated = asyncio.run(start(level="cooking-easy", split="train", index=0))
    played = asyncio.run(start(path=str(own)))
    assert played.observation == generated.observation
    assert played.info["task_type"] == "mine"
    own.with_suffix(".json").write_text('{"version": 1, "world": 3, "quests": [], "infos": [], "KB": {}}')
    with pytest.raises(DataError, match="TextWorld cannot read"):
        asyncio.run(start(path=str(own)))
    own.write_bytes(own.read_bytes()[:1000])
    with pytest.raises(DataError, match="truncated"):
        asyncio.run(start(path=str(own)))


@pytest.mark.parametrize(
    "params",
    [{}, {"path": 3}, {"level": "simple", "split": "train", "index": -1}, {"challenge": "simple", "settings": []}],
)
def test_params_that_name_no_game_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        asyncio.run(TextWorldEnv().reset(task=game_task(**params)))


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(shelf.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match=r"palaestra\[textworld\]"):
        shelf.game_file(of_level("simple", "train", 0))
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[textworld\]"):
        Story(Path("game.z8"))
