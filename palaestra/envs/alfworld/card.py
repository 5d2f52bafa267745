"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="alfworld",
    summary="household tasks in words: find, clean, heat, cool, put, look at",
    env="alfworld/Household-v0",
    levels=("small", "full", "alfred", "original"),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="1 at success, else 0",
    admissible=True,
    max_turns=50,
    licence="the engine and its scenes are part of Palaestra; ALFRED's trials and ALFWorld's games: MIT",
    source="Shridhar et al. 2021, arXiv 2010.03768",
    page="environments/alfworld.md",
)
