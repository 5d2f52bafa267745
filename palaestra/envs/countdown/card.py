"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="countdown",
    summary="make a target of given numbers, by one operation a turn or in one expression",
    env="countdown/Numbers-v0",
    levels=("steps-3", "steps-4", "tinyzero", "show", "show-steps"),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="1 for the target, else 0; in one expression 0.1 for another answer",
    admissible=True,
    max_turns=6,
    licence="part of Palaestra",
    source="Pan et al. 2025, TinyZero; Gandhi et al. 2024, arXiv 2404.03683",
    page="environments/countdown.md",
)
