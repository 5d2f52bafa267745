"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="math",
    summary="problems whose answers are checked, alone or with a Python interpreter: GSM8K, MATH-500, AIME, your own",
    env="math/Answer-v0",
    levels=("arithmetic",),
    splits={"train": 100_000, "validation": 1_000, "test": 1_000},
    oracle=True,
    rewards="1 for the right answer, else 0",
    admissible=False,
    max_turns=1,
    extra="math",
    needs="nothing for arithmetic; else the data, yours or from the hub (extra hub); bubblewrap for Python",
    licence="math-verify: Apache-2.0; GSM8K and MATH: MIT",
    source="Cobbe et al. 2021, arXiv 2110.14168; Hendrycks et al. 2021, arXiv 2103.03874",
    page="environments/math.md",
)
