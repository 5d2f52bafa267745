"""The suite in brief."""

from palaestra.envs.card import SuiteCard
from palaestra.envs.scienceworld.tasks import ALL, TASKS

CARD = SuiteCard(
    name="scienceworld",
    summary="experiments of a primary school: boil, measure, wire up, breed, classify",
    env="scienceworld/Task-v0",
    levels=(ALL, *TASKS),
    splits={"train": 3_592, "validation": 1_796, "test": 1_819},
    oracle=True,
    rewards="change of the score, which ends at 1, or at -1 after a wrong focus",
    progress=True,
    admissible=True,
    max_turns=100,
    extra="scienceworld",
    needs="Java 11 or newer",
    licence="scienceworld: Apache-2.0",
    source="Wang et al. 2022, arXiv 2203.07540",
    page="environments/scienceworld.md",
)
