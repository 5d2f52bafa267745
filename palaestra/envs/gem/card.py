"""The suite in brief."""

from palaestra.envs.card import SuiteCard
from palaestra.envs.gem.games import LEVELS
from palaestra.envs.gem.suite import LEVEL

CARD = SuiteCard(
    name="gem",
    summary="GEM's puzzle games, and questions of one turn, answered in \\boxed{...}",
    env="gem/Game-v0",
    levels=(LEVEL, *(level for level in LEVELS if level != LEVEL)),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=False,
    rewards="the package's own: 0 to 1 in all, -0.1 for an answer that cannot be read",
    admissible=True,
    max_turns=100,
    extra="gem",
    needs="an interpreter of its own (370 MB), which the first use builds",
    licence="gem-llm: Apache-2.0",
    source="Liu et al. 2025, arXiv 2510.01051",
    page="environments/gem.md",
)
