"""Whether tasks are what their manifest says: untouched, exactly the tests to pass fail; with the gold patch, none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.releases import REPOSITORY, SITE
from palaestra.envs.swe.running import Run, Sandboxes, Suite
from palaestra.envs.swe.tree import read_folder


class Verification(Struct, frozen=True, kw_only=True):
    """What running a task's tests showed."""

    name: str
    """Of the task."""
    fail_to_pass: int
    """Tests that fail and must pass."""
    pass_to_pass: int
    """Tests that pass and must go on to."""
    noop: int
    """Of `fail_to_pass`, those that passed where nothing was done: at most, over the runs."""
    oracle: int
    """Of `fail_to_pass`, those that passed with the gold patch: at least, over the runs."""
    wrong: tuple[str, ...]
    """What was not as it should be; empty where the task is good."""
    seconds: float
    """Of the slowest run of its tests."""

    @property
    def ok(self) -> bool:
        """Whether the task is what its manifest says."""
        return not self.wrong


def verify(instance: Instance, sandboxes: Sandboxes, runs: int = 1) -> Verification:
    """Run a task's tests over what the agent finds, and over that with the gold patch.

    Args:
        instance: of a release history.
        sandboxes: where they run.
        runs: how often each is run.

    Raises:
        SandboxError: there is no sandbox for them.
    """
    untouched = [_run(instance, sandboxes, "") for _ in range(runs)]
    solved = [_run(instance, sandboxes, instance.gold_patch) for _ in range(runs)]
    failing, passing = frozenset(instance.fail_to_pass), frozenset(instance.pass_to_pass)
    wrong = [*_wrong("no-op", untouched, failing, passing), *_wrong("oracle", solved, frozenset(), failing | passing)]
    return Verification(
        name=instance.name,
        fail_to_pass=len(failing),
        pass_to_pass=len(passing),
        noop=max(len(failing & run.passed) for run in untouched),
        oracle=min(len(failing & run.passed) for run in solved),
        wrong=tuple(dict.fromkeys(wrong)),
        seconds=max(run.seconds for run in (*untouched, *solved)),
    )


def _run(instance: Instance, sandboxes: Sandboxes, patch: str) -> Run:
    suite = Suite(
        site=Path(instance.files[SITE]),
        command=instance.test_command,
        env=instance.env,
        limits=instance.limits,
        image=instance.image,
        seconds=instance.test_seconds,
    )
    tests = read_folder(Path(instance.test_files[REPOSITORY]))
    repository = Path(instance.files[REPOSITORY])
    return sandboxes.run(suite, repository, tests, removed=instance.test_paths, patch=patch)


def _wrong(what: str, runs: Sequence[Run], must_fail: frozenset[str], must_pass: frozenset[str]) -> Iterator[str]:
    for run in runs:
        if not run.outcomes:
            yield f"{what}: the tests came to no end: {' '.join(run.output.split())[-200:]}"
            continue
        for kind, ids in (("passes", must_fail & run.passed), ("does not pass", must_pass - run.passed)):
            if ids:
                yield f"{what}: {sorted(ids)[0]} {kind}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
