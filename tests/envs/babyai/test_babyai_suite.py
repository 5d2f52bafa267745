"""The babyai suite: names, splits that share nothing, the missing extra."""

from __future__ import annotations

import asyncio
import sys

import pytest

from palaestra.envs.tasks import load_suite
from palaestra.errors import MissingExtraError, UnknownNameError


def test_splits_share_no_game() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")
    from palaestra.envs.babyai.levels import SPLITS, begin_of_split, start_hash

    starts = {
        split: {start_hash(begin_of_split("GoToRedBallNoDists", split, index)[0]) for index in range(40)}
        for split in SPLITS
    }
    assert all(len(found) > 30 for found in starts.values())
    assert not starts["train"] & starts["test"]
    assert not starts["train"] & starts["validation"]
    assert not starts["validation"] & starts["test"]


def test_a_task_is_one_game() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")
    from palaestra import make

    async def start(index: int) -> str:
        task = load_suite("babyai/PickupLoc:test")[index]
        async with make(task.env) as env:
            return (await env.reset(seed=task.seed, task=task)).observation

    assert asyncio.run(start(3)) == asyncio.run(start(3)) != asyncio.run(start(4))
    suite = load_suite("babyai:validation[:7]")
    assert [task.name for task in suite] == [f"GoToLocal-{i}" for i in range(7)]
    assert suite[0].kind == "GoToLocal"


def test_the_card_names_every_level() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")
    from palaestra.envs.babyai.card import CARD
    from palaestra.envs.babyai.levels import levels
    from palaestra.envs.babyai.suite import LEVEL

    assert sorted(CARD.levels) == sorted(levels())
    assert CARD.levels[0] == LEVEL


def test_unknown_levels_and_splits_name_the_nearest() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'palaestra[babyai]'")
    with pytest.raises(UnknownNameError, match="'BossLevel'"):
        load_suite("babyai/BosLevel:train")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load_suite("babyai:valid")


def test_without_minigrid_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from palaestra.envs.babyai import levels

    levels.levels.cache_clear()
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[babyai\]"):
        load_suite("babyai:train")
