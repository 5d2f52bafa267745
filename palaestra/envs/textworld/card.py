"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="textworld",
    summary="generated text adventures: collect coins, hunt treasures, cook",
    env="textworld/Game-v0",
    levels=(),
    splits={"train": 10_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="rise of the game's score, a whole number up to the game's maximum",
    progress=True,
    admissible=True,
    max_turns=100,
    extra="textworld",
    licence="textworld: MIT; jericho, which plays the games: GPL-2.0-or-later",
    source="Cote et al. 2018, arXiv 1806.11532",
    page="environments/textworld.md",
)
