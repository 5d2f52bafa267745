"""What the checks found."""

from __future__ import annotations

from typing import Literal

import msgspec

from palaestra.envs.checks.probe import Baseline
from palaestra.errors import EnvError

Grade = Literal["exact", "seeded", "noisy"]
Outcome = Literal["pass", "warn", "fail", "skip"]

MARKS: dict[Outcome, str] = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "–"}
_COUNTED: dict[Outcome, str] = {"pass": "passed", "warn": "to look at", "fail": "failed", "skip": "skipped"}


class Check(msgspec.Struct, frozen=True):
    """One promise of the contract."""

    name: str
    outcome: Outcome
    reason: str = ""
    """Why it failed, was skipped or deserves a look; of a passed one what it found, if that is worth showing."""

    def __str__(self) -> str:
        return f"{MARKS[self.outcome]} {self.name}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `check_env` found; `str(report)` is for reading."""

    env: str
    placement: str = "inline"
    """Where its instances ran."""
    checks: tuple[Check, ...] = ()
    determinism: Grade | None = None
    """`exact`: seed and actions fix every observation, reward and flag. `seeded`: the seed fixes the first observation.
    `noisy`: neither. `None`: could not be played."""
    episodes: int = 0
    """Episodes that the grade rests on."""
    steps: int = 0
    """Steps of these episodes."""
    baselines: tuple[Baseline, ...] = ()
    """How agents that know nothing fare."""
    missing: str = ""
    """What is needed before it can be made, if that is why it could not: an extra, for example."""

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return self.having("fail")

    @property
    def warnings(self) -> list[Check]:
        """The checks that somebody should look at."""
        return self.having("warn")

    def having(self, outcome: Outcome) -> list[Check]:
        """The checks that came out so."""
        return [check for check in self.checks if check.outcome == outcome]

    def to_json(self) -> str:
        """The report as a JSON object, `ok` included."""
        return msgspec.json.encode({"ok": self.ok, **msgspec.to_builtins(self)}).decode()

    def raise_if_failed(self) -> None:
        """Raise what failed.

        Raises:
            EnvError: a check failed; the message lists all that did.
        """
        if not self.ok:
            listed = "; ".join(f"{check.name}: {check.reason}" for check in self.failures)
            raise EnvError(f"{self.env} breaks the contract: {listed}")

    @property
    def counts(self) -> str:
        """`29 passed, 1 to look at, 0 failed, 3 skipped`."""
        return ", ".join(f"{len(self.having(outcome))} {word}" for outcome, word in _COUNTED.items())

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        rows = [f"  {MARKS[c.outcome]} {c.name:{width}}  {c.reason}".rstrip() for c in self.checks]
        title = self.env if self.placement == "inline" else f"{self.env} ({self.placement})"
        played = f"{self.episodes} episodes, {self.steps} steps"
        return "\n".join([title, *rows, f"{self.counts}; determinism: {self.determinism or 'unknown'} ({played})"])
