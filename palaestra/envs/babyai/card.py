"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="babyai",
    summary="instructions in grid worlds, told in words",
    env="babyai/Text-v0",
    levels=(),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="1 - 0.9 turn / limit at success, else 0",
    admissible=True,
    max_turns=64,
    extra="babyai",
    licence="minigrid: Apache-2.0",
    source="Chevalier-Boisvert et al. 2019, arXiv 1810.08272",
    page="environments/babyai.md",
)
