"""What the papers claim, as differences that the study measures: from whom, of what, in which direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.learning.results import (
    Record,
    Results,
    Score,
    branch_share,
    entropy_roughness,
    late_entropy,
    middle_entropy,
    scores,
    test_success,
    training_success,
    turn_roughness,
)
from palaestra.evaluation.aggregate import Estimate, difference_of_iqm, stratified_bootstrap


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that a run of the study can support or contradict."""

    paper: str
    text: str
    ours: str
    """Setting that should differ..."""
    theirs: str
    """...from this one."""
    measure: str
    score: Score
    more: bool
    """Whether the claim is that ours is higher."""
    share: bool = False
    """The measure is a share, told in points of a percent."""


CLAIMS = (
    Claim("EPO", "steadier entropy", "epo", "grpo", "change per iteration", entropy_roughness, False, True),
    Claim("EPO", "steadier entropy turn by turn", "epo", "grpo", "change per iteration", turn_roughness, False, True),
    Claim("EPO", "steadier than the bonus", "epo", "bonus", "change per iteration", entropy_roughness, False, True),
    Claim("EPO", "higher success", "epo", "grpo", "test success", test_success, True, True),
    Claim("EMPG", "higher success", "empg", "grpo", "test success", test_success, True, True),
    Claim("EMPG", "faster learning", "empg", "grpo", "training success", training_success, True, True),
    Claim("AEPO", "branches spread more evenly", "aepo", "arpo", "on the top three", branch_share, False, True),
    Claim("AEPO", "higher success, update alone", "aepo-update", "grpo", "test success", test_success, True, True),
    Claim("AEPO", "higher success, both halves", "aepo", "grpo", "test success", test_success, True, True),
    Claim("AEPO", "higher success than ARPO's rollouts", "aepo", "arpo", "test success", test_success, True, True),
    Claim("AEPO", "steadier entropy", "aepo", "grpo", "change per iteration", entropy_roughness, False, True),
    Claim("SPEAR", "explores on in the middle", "spear", "grpo", "entropy, of the first", middle_entropy, True, True),
    Claim("SPEAR", "no collapse at the end", "spear", "grpo", "entropy, of the first", late_entropy, True, True),
    Claim("SPEAR", "higher success", "spear", "grpo", "test success", test_success, True, True),
)


LEAST_RUNS = 3
"""With fewer a bootstrap has nothing to draw from."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the study says about a claim in one environment."""

    claim: Claim
    environment: str
    difference: Estimate
    """Interquartile mean of ours less that of theirs."""
    runs: int
    """Of the setting that has fewer."""

    @property
    def verdict(self) -> str:
        """`reproduces`, `the opposite`, or `cannot be told`: by whether the interval leaves zero out, and where."""
        if self.runs < LEAST_RUNS:
            return "too few runs"
        low, high = (self.difference.low, self.difference.high)
        if low <= 0 <= high:
            return "cannot be told"
        return "reproduces" if (low > 0) == self.claim.more else "the opposite"


def findings(results: Results) -> list[Finding]:
    """Each claim in each environment in which both settings were run."""
    return [
        found
        for claim in CLAIMS
        for environment, settings in results.items()
        if claim.ours in settings and claim.theirs in settings
        if (found := _finding(claim, environment, settings)) is not None
    ]


def _finding(claim: Claim, environment: str, settings: dict[str, list[Record]]) -> Finding | None:
    ours, theirs = (scores(settings[name], claim.score) for name in (claim.ours, claim.theirs))
    if not all(map(math.isfinite, [*ours, *theirs])):
        return None
    difference = stratified_bootstrap(difference_of_iqm, {environment: ours}, {environment: theirs})
    return Finding(claim, environment, difference, min(len(ours), len(theirs)))
