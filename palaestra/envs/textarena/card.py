"""The suite in brief."""

from palaestra.envs.card import SuiteCard
from palaestra.envs.textarena.games import GAMES
from palaestra.envs.textarena.suite import LEVEL

CARD = SuiteCard(
    name="textarena",
    summary="TextArena's board, card, dice and puzzle games, alone or against scripted players",
    env="textarena/Game-v0",
    levels=(LEVEL, *(game for game in GAMES if game != LEVEL)),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=False,
    rewards="-1 to 1 on the last move, as the game says",
    admissible=True,
    max_turns=200,
    extra="textarena",
    licence="textarena: MIT",
    source="Guertler et al. 2025, arXiv 2504.11442",
    page="environments/textarena.md",
)
