"""Texts and admissible commands are those of TextWorld's own environment, byte for byte."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("textworld", reason="not installed: pip install 'palaestra[textworld]'")

from palaestra.envs.textworld.recipe import of_level
from palaestra.envs.textworld.shelf import game_file
from palaestra.envs.textworld.tracking import open_game

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Game .* is not fully supported")]
KEPT = ("admissible_commands", "score", "won", "lost", "max_score", "objective", "policy_commands")


def said(state: Any) -> list[Any]:
    return [state.feedback, state.raw, *(state.get(name) for name in KEPT)]


@pytest.mark.parametrize("advising", [False, True])
@pytest.mark.parametrize("level", ["cooking-easy", "coin-easy", "treasure-easy", "simple"])
def test_every_turn_equals_the_packages(level: str, advising: bool) -> None:
    import textworld

    game = game_file(of_level(level, "train", 0))
    wanted = textworld.EnvInfos(admissible_commands=True, max_score=True, objective=True, policy_commands=advising)
    stock, ours = textworld.start(str(game), wanted), open_game(game, advising)
    for seed in range(2):
        generator = random.Random(seed)
        theirs, mine = stock.reset(), ours.reset()
        for _ in range(25):
            assert said(mine) == said(theirs)
            if theirs["won"] or theirs["lost"]:
                break
            command = generator.choice([*theirs["admissible_commands"], "look", "dance", "open everything"])
            theirs, mine = stock.step(command)[0], ours.step(command)[0]
    stock.close()
    ours.close()


def test_the_walkthrough_is_followed_alike() -> None:
    import textworld

    game = game_file(of_level("cooking-easy", "train", 1))
    stock = textworld.start(str(game), textworld.EnvInfos(admissible_commands=True, max_score=True, objective=True))
    ours = open_game(game, False)
    theirs, mine = stock.reset(), ours.reset()
    for command in theirs["game"].metadata["walkthrough"]:
        theirs, mine = stock.step(command)[0], ours.step(command)[0]
        assert said(mine) == said(theirs)
    assert mine["won"]
    stock.close()
    ours.close()
