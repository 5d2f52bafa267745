"""Levels, splits and settings of TextWorld's games; nothing is generated."""

from __future__ import annotations

from typing import Any

import pytest

from palaestra.envs.tasks import load_suite
from palaestra.envs.textworld.recipe import LEVELS, SPLITS, Cooking, of_challenge, of_level
from palaestra.errors import DataError, UnknownNameError


def test_splits_share_no_seed_and_cooking_no_food() -> None:
    recipes = {split: [of_level("cooking-easy", split, index) for index in (0, 999)] for split in SPLITS}
    assert len({recipe.seed for found in recipes.values() for recipe in found}) == 6
    assert [found[0].arguments()["split"] for found in recipes.values()] == ["train", "valid", "test"]


def test_every_level_is_a_challenge_that_takes_its_settings() -> None:
    for level in LEVELS:
        recipe = of_level(level, "train", 3)
        arguments = {key: value for key, value in recipe.arguments().items() if key != "recipe_seed"}
        assert of_challenge(recipe.challenge, arguments, recipe.seed) == recipe


def test_a_task_names_its_game() -> None:
    task = load_suite("textworld/cooking-hard:test")[5]
    assert task.params == {"level": "cooking-hard", "split": "test", "index": 5}
    assert (task.name, task.kind) == ("cooking-hard-5", "cooking-hard")


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'cooking-easy'"):
        load_suite("textworld/cooking-eazy:train")
    with pytest.raises(UnknownNameError, match="'validation'"):
        load_suite("textworld:valid")
    with pytest.raises(UnknownNameError, match="'cooking'"):
        of_challenge("cookin", {}, 1)
    with pytest.raises(DataError, match="0 to 999"):
        of_level("simple", "test", 1000)


@pytest.mark.parametrize(
    "settings", [{"level": 0}, {"level": 301}, {"level": "5"}, {"level": 5, "rooms": 2}, {}, {"level": 2.5}]
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="coin_collector"):
        of_challenge("coin_collector", settings, 1)


def test_no_more_can_be_found_than_the_recipe_has() -> None:
    with pytest.raises(DataError, match="take"):
        of_challenge("cooking", {"recipe": 1, "take": 2}, 1)
    assert of_challenge("cooking", {"recipe": 2, "take": 2}, 1).settings == Cooking(recipe=2, take=2)
