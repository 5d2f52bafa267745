"""The suite in brief."""

from palaestra.envs.card import SuiteCard
from palaestra.envs.reasoning.generators import DEFAULT, OFFERED, PER_SPLIT

CARD = SuiteCard(
    name="reasoning",
    summary="questions with one answer: arithmetic, algebra, logic, puzzles, text, graphs and more",
    env="reasoning/Gym-v0",
    levels=(DEFAULT, *(name for name in OFFERED if name != DEFAULT)),
    splits=dict(PER_SPLIT),
    oracle=True,
    rewards="the generator's own score at the end, 0 to 1",
    admissible=False,
    action="message",
    max_turns=1,
    extra="reasoning",
    licence="reasoning-gym: Apache-2.0",
    source="Stojanovski et al. 2025, arXiv 2505.24760",
    page="environments/reasoning.md",
)
