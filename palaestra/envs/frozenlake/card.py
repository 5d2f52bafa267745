"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="frozenlake",
    summary="walk over ice, slippery or not, to the goal and into no hole",
    env="frozenlake/Text-v0",
    levels=("4x4", "8x8", "slippery-4x4", "slippery-8x8"),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="1 at the goal, else 0",
    admissible=True,
    max_turns=20,
    licence="part of Palaestra",
    source="after Gymnasium's FrozenLake; Towers et al. 2024, arXiv 2407.17032",
    page="environments/frozenlake.md",
)
