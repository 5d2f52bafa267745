"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="swe",
    summary="repositories with a problem to mend, with shell, view, search, edit and patch, judged by sealed tests",
    env="swe/Repository-v0",
    levels=("releases",),
    splits={"train": 39, "validation": 6, "test": 17},
    determinism="noisy",
    oracle=True,
    rewards="1 where all tests pass, else 0; or the share of tests that begin to pass",
    admissible=False,
    action="message",
    max_turns=50,
    needs="bubblewrap or a Docker engine; sources from the package index; for other levels: files of yours",
    licence="the packages' own, MIT or BSD-3-Clause; Harbor's and SWE-bench's: their authors'",
    source="after SWE-bench, arXiv 2310.06770, and Harbor's task format",
    page="environments/swe.md",
)
