"""The suite in brief."""

from palaestra.envs.card import SuiteCard
from palaestra.envs.gymnasium_text.suite import LEVEL
from palaestra.envs.gymnasium_text.words import WORDS

CARD = SuiteCard(
    name="gymnasium",
    summary="any of Gymnasium's environments in words: FrozenLake, Taxi, Blackjack, CliffWalking, CartPole",
    env="gymnasium/Text-v0",
    levels=(LEVEL, *(id for id in WORDS if id != LEVEL)),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=False,
    rewards="the environment's own",
    admissible=True,
    max_turns=100,
    extra="gymnasium",
    licence="gymnasium: MIT",
    source="Towers et al. 2024, arXiv 2407.17032",
    page="environments/gymnasium.md",
)
