"""Tests that write a number: what of it counts, and what an agent may do to it without effect."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.sandboxes import told
from support.swe_episode import need_bubblewrap

from palaestra.envs.swe import reward_file
from palaestra.envs.swe.grade import Grade
from palaestra.envs.swe.instance import Instance
from palaestra.errors import DataError, SandboxError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.spec import SandboxSpec

SPEC = SandboxSpec(workdir="/logs")
"""So that the place of the verdict can be written to, whatever the root is."""


def instance_of(folder: Path, script: str, **more: Any) -> Instance:
    """A task whose tests are this script."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.sh").write_text(script)
    return Instance(
        name="number",
        format="harbor",
        problem="",
        workdir="/logs",
        repository="/logs",
        test_files={"/logs/tests": str(folder)},
        test_command=("sh", "/logs/tests/test.sh"),
        verdict="reward-file",
        **more,
    )


def grades(instances: list[Instance], work: str = "") -> list[Grade]:
    """What is said of a sandbox in which a script was run."""

    async def run() -> list[Grade]:
        need_bubblewrap()
        async with open_backend("bubblewrap") as backend, await backend.start(SPEC) as final:
            if work:
                await told(final, work)
            return [await reward_file.grade(instance, final) for instance in instances]

    return asyncio.run(run())


WRITTEN = {
    "echo 1 > v/reward.txt": (True, 1.0, ""),
    "echo ' 1.0 ' > v/reward.txt": (True, 1.0, ""),
    "echo 7 > v/reward.txt": (True, 1.0, ""),
    "echo 0.25 > v/reward.txt": (False, 0.25, "the reward is 0.25"),
    "echo -3 > v/reward.txt": (False, 0.0, "the reward is -3"),
    "echo 0 > v/reward.txt; echo '{\"reward\": 1}' > v/reward.json": (False, 0.0, "the reward is 0"),
    'echo \'{"reward": 1, "style": 0}\' > v/reward.json': (True, 1.0, ""),
    'echo \'{"speed": 1, "style": 0}\' > v/reward.json': (False, 0.5, "the reward is 0.5"),
    "echo 1 > v/reward.txt; exit 3": (True, 1.0, ""),
}
UNREADABLE = (
    "true",
    "echo nan > v/reward.txt",
    "echo inf > v/reward.txt",
    "echo many > v/reward.txt",
    "printf '\\377' > v/reward.txt",
    "head -c 2000 /dev/zero | tr '\\0' 1 > v/reward.txt",
    "mkdir v/reward.txt",
    "mkfifo v/reward.txt",
    "echo '{}' > v/reward.json",
    "echo '[1]' > v/reward.json",
    'echo \'{"reward": "1"}\' > v/reward.json',
    "head -c 90000 /dev/zero | tr '\\0' '[' > v/reward.json",
)


def test_what_is_written_is_the_share(tmp_path: Path) -> None:
    scripts = [*WRITTEN, *UNREADABLE]
    made = [instance_of(tmp_path / str(n), each.replace("v/", "/logs/verifier/")) for n, each in enumerate(scripts)]
    found = dict(zip(scripts, grades(made), strict=True))
    for script, expected in WRITTEN.items():
        assert (found[script].solved, found[script].share, found[script].reason) == expected, script
    for script in UNREADABLE:
        grade = found[script]
        assert (grade.solved, grade.share, grade.passed) == (False, 0.0, 0), script
        assert "the tests wrote no number to /logs/verifier/reward.txt" in grade.reason, script


def test_tests_that_come_to_no_end(tmp_path: Path) -> None:
    slow = instance_of(tmp_path / "slow", "echo 1 > /logs/verifier/reward.txt; sleep 60", test_seconds=0.5)
    killed = instance_of(tmp_path / "killed", "echo 1 > /logs/verifier/reward.txt; kill -9 $$")
    assert [grade.reason for grade in grades([slow, killed])] == [
        "the tests were stopped: timeout",
        "the tests were stopped: signal",
    ]


@pytest.mark.parametrize(
    "work",
    [
        "mkdir verifier; echo 1 > verifier/reward.txt; echo '{\"reward\": 1}' > verifier/reward.json",
        "mkdir tests; echo 'echo 1 > /logs/verifier/reward.txt' > tests/test.sh; chmod 500 tests/test.sh",
        "mkdir kept; echo 1 > kept/reward.txt; ln -s kept verifier",
        "ln -s /tmp tests",
        "(while :; do mkdir -p verifier; echo 1 > verifier/reward.txt; sleep 0.01; done) >/dev/null 2>&1 &",
        "echo 'mkdir -p /logs/verifier; echo 1 > /logs/verifier/reward.txt' > start.sh",
        "mkdir bin; printf '#!/bin/sh\\necho 1 > /logs/verifier/reward.txt\\n' > bin/sleep; chmod +x bin/sleep",
    ],
)
def test_what_the_agent_lays_there_is_not_believed(tmp_path: Path, work: str) -> None:
    names = {"BASH_ENV": "/logs/start.sh", "ENV": "/logs/start.sh", "PATH": "/logs/bin:/usr/bin:/bin"}
    (grade,) = grades([instance_of(tmp_path / "tests", "sleep 0.1", env=names)], work)
    assert (grade.solved, grade.share) == (False, 0.0), grade


def test_what_cannot_be_judged_is_an_error(tmp_path: Path) -> None:
    instance = instance_of(tmp_path / "tests", "true")

    async def run() -> None:
        need_bubblewrap()
        async with open_backend("bubblewrap") as backend:
            final = await backend.start(SPEC)
            (tmp_path / "tests" / "test.sh").unlink()
            (tmp_path / "tests").rmdir()
            with pytest.raises(DataError, match="the tests of 'number' are not at"):
                await reward_file.grade(instance, final)
            await final.close()
            with pytest.raises(SandboxError, match="closed"):
                await reward_file.grade(instance, final)

    asyncio.run(run())
