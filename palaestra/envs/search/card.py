"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="search",
    summary="multi-hop questions over an encyclopaedia of an invented world, with search and read",
    env="search/Questions-v0",
    levels=("medium", "easy", "hard"),
    splits={"train": 4_000, "validation": 500, "test": 500},
    oracle=True,
    rewards="1 for an answer that equals the gold answer, else 0; or word F1, or AEPO's, -1 to 1.1",
    admissible=True,
    action="message",
    max_turns=10,
    extra="search",
    needs="for other levels: files of yours, or a published set from a hub",
    licence="generated: ours; published sets: their authors'",
    source="after Search-R1, arXiv 2503.09516, and AEPO, arXiv 2510.14545",
    page="environments/search.md",
)
