"""Sealed grading: whether a final state solves its task, whatever the code in it does to be believed so.

What an agent leaves behind is taken as data (`submission`), laid over the task's initial state in sandboxes that it
never was in, and tested there with the tests of the task. None of its processes, programs or settings come along.

Its code does come along, and Python's tests run in one process with the code that they test. Nothing that such a
process says can be believed for its own sake. So every test is run twice, in an order that nobody can know: as it is,
and as a decoy that every truthful program fails (`decoys`). A test counts as passed if it passed and its decoy failed.
`docs/environments/swe-grading.md` says what that guarantees, and what it does not.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom

import msgspec

from palaestra.envs.swe import reward_file
from palaestra.envs.swe.grade import Fresh, Grade
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.place import Place
from palaestra.envs.swe.report import Report
from palaestra.envs.swe.rounds import Round, plan
from palaestra.envs.swe.submission import Refused, Submission, collect
from palaestra.errors import DataError
from palaestra.sandboxes.core import Sandbox

ROUNDS = 2
"""Runs of the tests: each test is a decoy in all but one of them."""
SHOWN = 20
"""Failures, and files left out, that a grade tells of."""


async def grade(
    instance: Instance,
    final: Sandbox,
    fresh: Fresh,
    *,
    rounds: int = ROUNDS,
    thorough: bool = False,
    random: Random | None = None,
) -> Grade:
    """Judge what an agent left behind.

    Nothing in `final` is run or changed, and its processes may go on meanwhile.

    Args:
        instance: the task.
        final: the agent's sandbox.
        fresh: starts another one in the task's initial state; called once a round, and the sandbox is closed here.
        rounds: 1 does without decoys: for solutions that nobody made to deceive.
        thorough: run all rounds also when it is clear that it is not solved, so that `Grade.failed` is right to a test.
        random: decides what is a decoy when. For tests; otherwise the operating system's.

    Raises:
        DataError: the task cannot be judged: its tests are not there, or its command is not pytest's.
        SandboxDaemonError: the engine is gone.
        SandboxError: a fresh sandbox cannot be started or prepared.
    """
    began = time.monotonic()
    if instance.verdict == "reward-file":
        made = await reward_file.grade(instance, final)
    else:
        with tempfile.TemporaryDirectory(prefix="palaestra-grade-", ignore_cleanup_errors=True) as folder:
            made = await _Grading(instance, fresh, Path(folder), random or SystemRandom(), rounds, thorough).run(final)
    return msgspec.structs.replace(made, seconds=time.monotonic() - began)


@dataclass
class _Grading:
    """One grading by pytest."""

    instance: Instance
    fresh: Fresh
    folder: Path
    """On this machine, for what is taken out of the agent's sandbox."""
    random: Random
    rounds: int
    thorough: bool
    seen: _Seen = field(init=False)

    def __post_init__(self) -> None:
        self.seen = _Seen((*self.instance.fail_to_pass, *self.instance.pass_to_pass))

    async def run(self, final: Sandbox) -> Grade:
        """Take the agent's files and test them, in as many rounds as it takes to know."""
        if not self.seen.required:
            raise DataError(f"{self.instance.name!r} names no test that must pass, so there is nothing to judge")
        try:
            async with await self.fresh() as sandbox:
                place = Place(sandbox, self.instance)
                await place.lay_tests()
                sources = await place.test_sources()
                rounds = await asyncio.to_thread(plan, self.seen.required, sources, self.random, self.rounds)
                submission = await collect(final, self.instance, place.roots(), self.folder / "final")
                self.seen.left_out = _told(submission, place)
                await self._round(place, submission, rounds[0])
            for later in rounds[1:]:
                if self.seen.settled and not self.thorough:
                    break
                async with await self.fresh() as sandbox:
                    place = Place(sandbox, self.instance)
                    await place.lay_tests()
                    await self._round(place, submission, later)
        except Refused as refusal:
            self.seen.refuse(str(refusal))
        return self.seen.grade()

    async def _round(self, place: Place, submission: Submission, tests: Round) -> None:
        await place.lay_decoys(tests)
        await place.lay_submission(submission)
        self.seen.note(tests, await place.examine())


def _told(submission: Submission, place: Place) -> tuple[str, ...]:
    """What was left out that the agent made: what the task has too is not worth a word."""
    made = sorted(set(submission.left_out) - set(place.before))
    return tuple(f"{path[:200]!r} {submission.left_out[path]}" for path in made[:SHOWN])


@dataclass
class _Seen:
    """What the rounds have shown so far."""

    required: Sequence[str]
    passed: set[str] = field(default_factory=set)
    fooled: set[str] = field(default_factory=set)
    """Tests whose decoys passed. In a program that fails the test itself that may be chance."""
    failed: dict[str, str] = field(default_factory=dict)
    """Test -> what was seen."""
    reason: str = ""
    odd: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether it is clear what the verdict is and why."""
        return bool(self.failed or self.reason or self.caught)

    @property
    def caught(self) -> str:
        """What no truthful program does: pass a test and its decoy, or tamper with the report."""
        both = sorted(self.passed & self.fooled)
        return self.odd or (f"{len(both)} tests pass as they are and as decoys, {both[0]} for one" if both else "")

    def refuse(self, reason: str) -> None:
        """It cannot be judged, which is the agent's doing."""
        self.reason, self.passed = reason, set()

    def note(self, tests: Round, report: Report) -> None:
        """Take in one round."""
        self.reason = self.reason or report.problem
        for test in sorted(tests.real):
            if report.ended and report.outcomes.get(test) == "passed":
                self.passed.add(test)
            else:
                file = test.partition("::")[0]
                detail = report.details.get(test) or report.details.get(file, "")
                self.failed[test] = f"{report.outcomes.get(test, 'not run')}\n{detail}".strip()
        self.fooled |= {test for test in tests.decoys if report.outcomes.get(test) == "passed"}
        self.odd = self.odd or report.odd

    def grade(self) -> Grade:
        """The verdict."""
        passed = [] if self.caught else [test for test in self.required if self._passed(test)]
        failed = tuple(test for test in self.required if test not in set(passed))
        return Grade(
            solved=not failed and not self.reason,
            passed=len(passed),
            required=len(self.required),
            failed=failed,
            reason=self.caught or self.reason or self._failures(),
            caught=self.caught,
            details=dict(sorted(self.failed.items())[:SHOWN]),
            left_out=self.left_out,
        )

    def _passed(self, test: str) -> bool:
        return test in self.passed and test not in self.failed and test not in self.fooled

    def _failures(self) -> str:
        if not self.failed:
            return ""
        first = min(self.failed)
        return f"{len(self.failed)} of the tests that were run do not pass, {first} for one"
