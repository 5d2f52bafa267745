"""Each check finds the environment that breaks its promise, and no other check does."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from support import odd_envs

from palaestra.envs.checker import Report, _run, check_env
from palaestra.envs.checks import CHECKS
from palaestra.envs.checks.probe import Probe
from palaestra.envs.checks.report import Check
from palaestra.envs.checks.supervisor import supervised
from palaestra.envs.checks.surroundings import temporary_files
from palaestra.envs.deadline import Limits, Watch
from palaestra.envs.episode import any_command
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import EnvSpec, make


def report(name: str, *, placement: Any = None, **fields: Any) -> Report:
    fields = {"max_episode_steps": 30, **fields}
    spec = EnvSpec(id=f"odd/{name}-v0", entry_point=f"support.odd_envs:{name}", **fields)
    return check_env(spec, placement=placement)


def odd(found: Report) -> list[Check]:
    return [*found.failures, *found.warnings]


@pytest.mark.parametrize("placement", ["inline", "thread", "process"])
def test_what_is_right_passes_everywhere(placement: Any) -> None:
    found = report("Corridor", placement=placement)
    assert odd(found) == [], str(found)
    assert found.determinism == "exact"
    assert found.placement == placement
    assert [baseline.agent for baseline in found.baselines] == ["random", "empty", "nonsense"]
    skipped = {check.name for check in found.having("skip")}
    elsewhere = {"global generators untouched"} if placement == "process" else set()
    assert skipped == {"snapshot", "tools", "render"} | elsewhere


@pytest.mark.parametrize(
    ("name", "fields", "check", "outcome", "reason"),
    [
        ("HashOrder", {}, "same in another process", "fail", "differs in another process at the reset; sort sets"),
        ("Shared", {}, "instances side by side", "fail", "goes another way than alone; instances share state"),
        ("HiddenLimit", {}, "flags agree with success", "warn", "are terminated after exactly 9 steps; if that is a"),
        ("WrongFlag", {}, "flags agree with success", "fail", "ends with success, but as truncated"),
        ("EndlessSuccess", {}, "oracle solves", "warn", "the episode goes on; set terminated"),
        ("Easy", {}, "random agent", "warn", r"mean reward 0.9, 90 % solved \(10 episodes\): an agent has little to"),
        ("PaysAnything", {}, "nonsense agent", "warn", r"mean reward 5, 0 % solved .*xyzzy plugh' is rewarded"),
        ("PaysSilence", {}, "empty agent", "warn", "mean reward 5, .*no text at all is rewarded"),
        ("PaysIdleness", {}, "empty agent", "warn", "no text at all is rewarded"),
        (
            "Undecided",
            {},
            "same when repeated",
            "fail",
            r"differs at step 1; .* register\(\.\.\., nondeterministic=True\)",
        ),
        ("SharedSnapshot", {}, "fork", "fail", "another outcome|changes the original"),
        ("ChangesInfo", {}, "nothing returned changes", "fail", "changed after it was returned"),
    ],
)
def test_the_promise_that_is_broken_is_named(
    name: str, fields: dict[str, Any], check: str, outcome: str, reason: str
) -> None:
    found = report(name, **fields)
    [named] = [c for c in found.checks if c.name == check]
    assert (named.outcome, bool(re.search(reason, named.reason))) == (outcome, True), str(found)
    if name not in ("Shared", "SharedSnapshot", "WrongFlag", "PaysIdleness", "EndlessSuccess"):
        assert odd(found) == [named], str(found)  # the others break more promises than one


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("file", "(4 × /dev/null)"),
        ("thread", "(4 × thread)"),
        ("process", "(4 × sleep)"),
        ("task", "4 asyncio tasks are left (4 × sleep)"),
        ("folder", "4 temporary files are left (left-"),
        ("chdir", "it changes the working directory to /; every instance"),
        ("variable", "it changes the environment variables ODD_LEAK; every instance"),
    ],
)
def test_what_close_leaves_is_named(what: str, reason: str) -> None:
    spec = EnvSpec(id="odd/Leaky-v0", entry_point="support.odd_envs:Leaky", kwargs={"what": what}, max_episode_steps=30)
    found = supervised(spec)
    assert [check.name for check in odd(found)] == ["close releases everything"], str(found)
    assert reason in found.failures[0].reason


def test_what_differs_in_another_process_is_not_exact() -> None:
    assert report("HashOrder").determinism == "noisy"


def test_declared_noise_is_expected() -> None:
    found = report("Undecided", nondeterministic=True)
    assert odd(found) == [], str(found)
    assert found.determinism == "seeded"


def test_places_are_counted() -> None:
    found = report("Corridor", placement=None, **{"max_episode_steps": 12})
    one = check_env(
        EnvSpec(
            id="odd/One-v0",
            entry_point="support.odd_envs:Corridor",
            max_episode_steps=12,
            placement=Placement(kind="thread", concurrency=1),
        )
    )
    assert found.ok
    assert odd(one) == [], str(one)
    reasons = {check.name: check.reason for check in one.having("skip")}
    assert reasons["instances side by side"] == "it is registered for one instance at a time"
    assert reasons["fork"] == "it is registered for at most 1 instance at once"


def test_a_limit_that_terminates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from palaestra.envs.wrappers import TimeLimit

    async def wrong(self: TimeLimit, action: Any) -> Any:
        step = await self.env.step(action)
        self._steps += 1
        return step._replace(terminated=True) if self._steps == self.max_episode_steps else step

    monkeypatch.setattr(TimeLimit, "step", wrong)
    [named] = [check for check in report("Corridor").failures if check.name == "limits truncate"]
    assert "is not truncated" in named.reason


def test_what_is_missing_is_no_failure_of_the_contract() -> None:
    found = check_env(EnvSpec(id="odd/Missing-v0", entry_point="support.odd_missing:Missing"))
    assert found.missing == "palaestra[quiz]"
    assert odd_envs.Corridor.length == 9


def test_the_random_agent_does_not_draw_as_the_environment_does() -> None:
    fields: dict[str, Any] = {"id": "odd/Draws-v0", "entry_point": "support.odd_envs:DrawsLikeTheAgent"}
    found = check_env(EnvSpec(**fields), max_steps=1)  # it would say the right word at once, every time
    [chance] = [baseline for baseline in found.baselines if baseline.agent == "random"]
    assert chance.success < 0.5, str(found)


def test_a_class_cannot_declare_noise_so_it_is_only_marked() -> None:
    [named] = check_env(odd_envs.Undecided, max_steps=30).warnings
    assert (named.name, named.outcome) == ("same when repeated", "warn")


def test_what_an_import_sets_is_no_affair_of_an_instance() -> None:
    found = supervised(EnvSpec(id="odd/Imported-v0", entry_point="support.odd_envs:Imported", max_episode_steps=30))
    assert odd(found) == [], str(found)


@pytest.mark.parametrize(
    ("mebibytes", "check", "outcome", "reason"),
    [
        (4, "observations are text", "warn", "an observation has 4.0 MiB, and records of episodes"),
        (64, "step", "fail", "no message may be over 64 MiB"),
    ],
)
def test_observations_have_a_length(mebibytes: int, check: str, outcome: str, reason: str) -> None:
    spec = EnvSpec(id="odd/Long-v0", entry_point="support.odd_envs:Long", kwargs={"mebibytes": mebibytes})
    probe = Probe(lambda: make(spec), spec, (0,), 1, any_command, Watch(Limits()))
    found = asyncio.run(_run(check, CHECKS[check], probe))
    assert (found.outcome, reason in found.reason) == (outcome, True), found.reason


def test_temporary_files_have_a_folder_of_their_own() -> None:
    with temporary_files() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["TMPDIR"] == str(folder)
    assert tempfile.gettempdir() != str(folder)
    assert folder.exists()
    shutil.rmtree(folder)
    with temporary_files() as folder:
        pass
    assert not folder.exists()
