"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="textworld-express",
    summary="eight fast text games: cooking, maps, arithmetic, sorting, Simon says and more",
    env="textworld-express/Game-v0",
    levels=("coin", "cookingworld", "twc", "mapreader", "arithmetic", "sorting", "simonsays", "peckingorder"),
    splits={"train": 1_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="change of the score, -1 to 1 in all",
    progress=True,
    admissible=True,
    max_turns=100,
    extra="textworld-express",
    needs="Java",
    licence="textworld-express: Apache-2.0",
    source="Jansen and Cote 2023, arXiv 2208.01174",
    page="environments/textworld-express.md",
)
