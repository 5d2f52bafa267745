import subprocess
import sys

import pytest
from support.alfworld_play import game

from palaestra.envs.alfworld.game import check_game
from palaestra.envs.alfworld.generate import LEVELS, generate, split_of
from palaestra.envs.alfworld.oracle import plan
from palaestra.envs.alfworld.world import World
from palaestra.errors import UnknownNameError

N = 120


@pytest.mark.parametrize("level", LEVELS)
def test_splits_share_no_layout(level: str) -> None:
    layouts = {split: {game(level, i, split).layout for i in range(N)} for split in ("train", "validation", "test")}
    assert not layouts["train"] & layouts["test"]
    assert not layouts["train"] & layouts["validation"]
    assert not layouts["validation"] & layouts["test"]
    for split in layouts:
        assert all(split_of(game(level, i, split)) == split for i in range(N))


@pytest.mark.parametrize("level", LEVELS)
def test_games_keep_their_levels_promises(level: str) -> None:
    limits = LEVELS[level]
    for i in range(N):
        drawn = check_game(game(level, i))
        assert drawn.goal.kind == limits.kinds[i % len(limits.kinds)]
        assert len(drawn.receptacles) <= limits.receptacles[1]
        assert len(drawn.objects) <= limits.objects[1] + 1  # a lamp may come on top
        assert sum(name == drawn.goal.object for name, _, _ in drawn.objects) >= 1 + drawn.goal.kind.startswith(
            "pick_two"
        )
        assert limits.least_plan <= len(plan(World(drawn))) < limits.max_turns
        assert not World(drawn).won()


@pytest.mark.parametrize("level", LEVELS)
def test_sizes_fill_their_range(level: str) -> None:
    """A scene may fall short of the number drawn for it; nearly all have the least, and they are spread to the most."""
    games, limits = [game(level, i) for i in range(N)], LEVELS[level]
    for sizes, (least, most) in (
        ([len(g.receptacles) for g in games], limits.receptacles),
        ([len(g.objects) for g in games], limits.objects),
    ):
        assert sum(size >= least for size in sizes) >= 0.93 * N
        assert max(sizes) >= most - 1
        assert len(set(range(least, most + 1)) & set(sizes)) > 0.8 * (most - least)


def test_a_game_depends_on_its_index_alone() -> None:
    names = [("small", "test", 3), ("full", "train", 7), ("small", "train", 3)]
    here = [generate(*name).fingerprint for name in names]
    code = (
        "import random; random.seed(5)\nfrom palaestra.envs.alfworld.generate import generate\n"
        f"print([generate(*name).fingerprint for name in {names[::-1]!r}][::-1])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    )
    assert there.stdout.strip() == repr(here)
    assert len(set(here)) == 3


def test_unknown_names_are_told() -> None:
    with pytest.raises(UnknownNameError, match="small"):
        generate("smal", "train", 0)
    with pytest.raises(UnknownNameError, match="train"):
        generate("small", "trian", 0)
