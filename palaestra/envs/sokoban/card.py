"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="sokoban",
    summary="push every box on a target",
    env="sokoban/Text-v0",
    levels=("small", "tiny", "medium", "large"),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="-0.1 a move, 1 for a box onto a target, -1 for one off, 10 at success",
    progress=True,
    admissible=True,
    max_turns=30,
    licence="part of Palaestra",
    source="Racanière et al. 2017, arXiv 1707.06203; Schrader 2018, gym-sokoban",
    page="environments/sokoban.md",
)
