"""Which game to generate: TextWorld's challenges, their settings, and named levels of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from palaestra.errors import DataError, UnknownNameError


class CoinCollector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Find and take the coin."""

    level: Annotated[int, msgspec.Meta(ge=1, le=300)]
    """Up to 100 without dead ends, up to 200 with some, up to 300 with many; a level more is a room more."""


class TreasureHunter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take the one object that is asked for, behind doors and in containers."""

    level: Annotated[int, msgspec.Meta(ge=1, le=30)]


class Simple(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A house in which food has to be put on the stove."""

    rewards: Literal["dense", "balanced", "sparse"] = "dense"
    goal: Literal["detailed", "brief", "none"] = "detailed"
    test: bool = False
    """From the challenge's test distribution."""


class Cooking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read the cookbook, fetch, cut and cook the ingredients, eat the meal."""

    recipe: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    """Ingredients."""
    take: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0
    """Ingredients that have to be found, at most `recipe`."""
    go: Literal[1, 6, 9, 12] = 1
    """Rooms."""
    open: bool = False
    cook: bool = False
    cut: bool = False
    drop: bool = False
    """Whether only a few things can be carried at once."""
    split: Literal["train", "valid", "test"] = "train"
    """Which foods, and which ways to prepare them."""


Settings = CoinCollector | TreasureHunter | Simple | Cooking
CHALLENGES: dict[str, type[Settings]] = {
    "coin_collector": CoinCollector,
    "treasure_hunter": TreasureHunter,
    "simple": Simple,
    "cooking": Cooking,
}
LEVELS: dict[str, Settings] = {
    "coin-easy": CoinCollector(level=5),
    "coin-medium": CoinCollector(level=105),
    "coin-hard": CoinCollector(level=205),
    "treasure-easy": TreasureHunter(level=5),
    "treasure-medium": TreasureHunter(level=15),
    "treasure-hard": TreasureHunter(level=25),
    "simple": Simple(),
    "simple-sparse": Simple(rewards="sparse", goal="brief"),
    "cooking-easy": Cooking(recipe=1, take=1, cut=True),
    "cooking-medium": Cooking(recipe=2, take=2, go=6, open=True, cook=True, cut=True),
    "cooking-hard": Cooking(recipe=3, take=3, go=12, open=True, cook=True, cut=True, drop=True),
}
LEVEL = "cooking-easy"
"""What is played where nobody names a level."""
SPLITS = {"train": 0, "validation": 1_000_000, "test": 2_000_000}
"""Split -> its first seed."""
SIZES = {"train": 10_000, "validation": 1_000, "test": 1_000}
"""Split -> number of its games."""
_COOKING_SPLITS: dict[str, Literal["train", "valid", "test"]] = {
    "train": "train",
    "validation": "valid",
    "test": "test",
}


class Recipe(msgspec.Struct, frozen=True):
    """Everything that fixes a generated game."""

    challenge: str
    settings: Settings
    seed: int

    def arguments(self) -> dict[str, Any]:
        """What TextWorld's own function for the challenge takes."""
        given: dict[str, Any] = msgspec.to_builtins(self.settings)
        return {**given, "recipe_seed": self.seed} if self.challenge == "cooking" else given


def of_level(level: str, split: str, index: int) -> Recipe:
    """Game `index` of a split. Seeds differ between splits; foods and houses too, where the challenge knows splits.

    Raises:
        UnknownNameError: no such level or split.
        DataError: the split has no such game.
    """
    check_names(level, split)
    if not 0 <= index < SIZES[split]:
        raise DataError(f"textworld/{level}:{split} has games 0 to {SIZES[split] - 1}, not {index}")
    settings = LEVELS[level]
    if isinstance(settings, Cooking):
        settings = msgspec.structs.replace(settings, split=_COOKING_SPLITS[split])
    elif isinstance(settings, Simple):
        settings = msgspec.structs.replace(settings, test=split == "test")
    return Recipe(_name_of(settings), settings, SPLITS[split] + index)


def of_challenge(challenge: str, settings: Mapping[str, Any], seed: int) -> Recipe:
    """A game by TextWorld's own settings.

    Raises:
        UnknownNameError: no such challenge.
        DataError: settings that it does not have, or out of range.
    """
    if challenge not in CHALLENGES:
        raise UnknownNameError("challenge of textworld", challenge, CHALLENGES)
    try:
        given = msgspec.convert(settings, CHALLENGES[challenge])
    except msgspec.ValidationError as error:
        raise DataError(f"the settings of textworld's {challenge} do not fit: {error}") from error
    if isinstance(given, Cooking) and given.take > given.recipe:
        raise DataError(f"take is {given.take}; no more than the {given.recipe} of the recipe can be found")
    return Recipe(challenge, given, seed)


def check_names(level: str, split: str) -> None:
    """Whether there are such a level and split.

    Raises:
        UnknownNameError: there are not.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of textworld", level, LEVELS)
    if split not in SPLITS:
        raise UnknownNameError("split of textworld", split, SPLITS)


def _name_of(settings: Settings) -> str:
    return next(name for name, kind in CHALLENGES.items() if isinstance(settings, kind))
