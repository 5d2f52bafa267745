from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.envs import InjectedEnv, hang, plain_reset, plain_step, tasks

from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import OracleAgent, RandomAgent, ScriptedAgent
from palaestra.cli.main import main
from palaestra.envs.core import Reset, Step, Verdict
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import DataError
from palaestra.trajectories.chain import next_link, start_link
from palaestra.trajectories.record import StepRecord, Trajectory
from palaestra.trajectories.replay import Replay, replay, replay_all, stores_of
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories


class Graded(InjectedEnv):
    async def verify(self) -> Verdict:
        return Verdict(0.25 * self.steps, True, {})


def play(
    n: int = 1, env: Callable[[], InjectedEnv] = InjectedEnv, agent: Any = None, **limits: Any
) -> list[Trajectory]:
    episodes = [Episode(task=task, id=f"0/{task.name}", seed=7) for task in tasks(n)]
    agent = agent or RandomAgent()
    return asyncio.run(rollout(episodes, agent, lambda _: env(), RolloutLimits(**limits)))


def again(trajectory: Trajectory, env: Callable[[], InjectedEnv] = InjectedEnv, seconds: float = 60.0) -> Replay:
    return asyncio.run(replay(trajectory, make_env=lambda _: env(), seconds=seconds))


async def other_reset(env: InjectedEnv) -> Reset[Any]:
    return (await plain_reset(env))._replace(observation="You see nothing.")


async def other_step(env: InjectedEnv, action: str) -> Step[Any]:
    step = await plain_step(env, action)
    return step._replace(observation=f"{step.observation}\nIt rains.", reward=0.5) if env.steps == 3 else step


async def raising(env: InjectedEnv, action: str) -> Step[Any]:
    raise ValueError("the door\nis stuck")


def test_an_episode_is_identical() -> None:
    (record,) = play()
    found = again(record)
    assert (found.result, found.steps, found.step) == ("identical", 5, None)
    assert (found.id, found.env, found.task) == ("0/task-0", "test/Injected-v0", "task-0")


@pytest.mark.parametrize("agent", [OracleAgent(), RandomAgent()], ids=["oracle", "random"])
def test_households_are_identical(agent: Any) -> None:
    suite = load_suite("alfworld/small:validation[:8]")
    episodes = [Episode(task=task, id=task.name, seed=1) for task in suite]
    records = asyncio.run(rollout(episodes, agent, make, RolloutLimits(max_turns=15)))

    async def all_again() -> list[Replay]:
        return [found async for found in replay_all(records, concurrency=3)]

    results = asyncio.run(all_again())
    assert {found.result for found in results} == {"identical"}
    assert {found.id for found in results} == {record.id for record in records}


def test_the_step_that_differs_is_shown() -> None:
    (record,) = play()
    found = again(record, lambda: InjectedEnv(on_step=other_step))
    assert (found.result, found.step, found.steps) == ("different", 3, 2)
    assert found.reason == f"action {record.steps[2].action!r}: another observation, reward"
    assert "--- step 3, recorded" in found.diff
    assert "+++ step 3, replayed" in found.diff
    assert "-reward: 0.0\n+It rains.\n+reward: 0.5" in found.diff
    assert " terminated: False" in found.diff


def test_another_start_is_shown() -> None:
    (record,) = play()
    found = again(record, lambda: InjectedEnv(on_reset=other_reset))
    assert (found.result, found.step) == ("different", 0)
    assert "+You see nothing." in found.diff


def test_a_step_that_raises_now_differs() -> None:
    found = again(play()[0], lambda: InjectedEnv(on_step=raising))
    assert (found.result, found.step) == ("different", 1)
    assert "raised ValueError: the door is stuck" in found.reason


def test_an_episode_cut_at_the_drivers_limit_is_identical() -> None:
    (record,) = play(max_turns=2)
    assert record.steps[-1].truncated
    assert again(record).result == "identical"
    found = again(record, lambda: InjectedEnv(on_step=lambda env, action: _raining(env, action)))
    assert "truncated" not in found.reason


async def _raining(env: InjectedEnv, action: str) -> Step[Any]:
    return (await plain_step(env, action))._replace(observation="It rains.")


def test_what_grading_adds_is_compared_too() -> None:
    (record,) = play(env=Graded)
    assert record.steps[-1].reward == 1 + 0.25 * 5
    assert again(record, Graded).result == "identical"
    found = again(record)
    assert (found.result, found.step) == ("different", 5)
    assert found.reason.endswith("another reward")
    assert "-reward: 2.25\n+reward: 1.0" in found.diff


def test_an_episode_that_was_cut_off_is_compared_as_far_as_it_goes() -> None:
    async def fails_late(env: InjectedEnv, action: str) -> Step[Any]:
        return await (raising if env.steps == 3 else plain_step)(env, action)

    (record,) = play(env=lambda: InjectedEnv(on_step=fails_late), retries=0)
    assert record.status == "error"
    assert (again(record).result, again(record).steps) == ("identical", 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"start_hash": "", "steps": []}, "the record holds nothing that could be compared"),
        ({"env": "no/Such-v0"}, "unknown environment 'no/Such-v0'; import the module that registers it"),
        ({"env": ""}, "unknown environment ''"),
        ({"task_seed": None, "seed": 99}, "the record does not have the task's seed"),
    ],
)
def test_what_lacks_something_is_named(changes: dict[str, Any], reason: str) -> None:
    record = msgspec.structs.replace(play()[0], **changes)
    found = asyncio.run(replay(record)) if "env" in changes else again(record)
    assert found.result == "impossible"
    assert found.reason.startswith(reason)


def test_a_task_that_cannot_be_built_is_named() -> None:
    record = msgspec.structs.replace(play()[0], env="alfworld/Household-v0", params={"no": "game"})
    found = asyncio.run(replay(record))
    assert found.result == "impossible"
    assert found.reason.startswith("the episode cannot be begun: ")


def test_without_hashes_everything_recorded_is_compared() -> None:
    (record,) = play()
    for step in record.steps:
        step.state_hash = ""
    record.start_hash = ""
    assert again(record).result == "identical"
    assert again(record, lambda: InjectedEnv(on_step=other_step)).step == 3


def _with(record: Trajectory, index: int, **changes: Any) -> Trajectory:
    steps = list(record.steps)
    steps[index] = msgspec.structs.replace(steps[index], **changes)
    return msgspec.structs.replace(record, steps=steps)


@pytest.mark.parametrize(
    ("tamper", "step", "reason"),
    [
        (lambda r: _with(r, 0, observation="LIES"), 0, "another first observation"),
        (lambda r: _with(r, 2, observation="LIES"), 2, "another observation"),
        (lambda r: msgspec.structs.replace(r, final_observation="LIES"), 5, "another observation"),
        (lambda r: _with(r, 1, terminated=True), 2, "another terminated"),
        (lambda r: _with(r, 1, truncated=True), 2, "another truncated"),
        (lambda r: _with(r, -1, truncated=True), 5, "another truncated"),
        (lambda r: _with(r, -1, terminated=False, truncated=True), 5, "another terminated, truncated"),
        (lambda r: _with(r, 0, invalid=True), 1, "another invalid"),
        (lambda r: _with(r, 1, reward=5.0), 2, "another reward"),
        (lambda r: _with(r, 1, reward=float("nan")), 2, "another reward"),
        (lambda r: _with(r, 1, state_hash="0" * 32), 2, "another hash, so the record does not agree with itself"),
        (lambda r: msgspec.structs.replace(r, steps=r.steps[:-1]), 4, "another observation"),
        (
            lambda r: msgspec.structs.replace(r, steps=r.steps[:-1], final_observation=r.steps[-1].observation),
            4,
            "the record says status ok, its steps cut off",
        ),
        (lambda r: msgspec.structs.replace(r, steps=[]), 0, "another first observation"),
        (lambda r: msgspec.structs.replace(r, success=False), 5, "the record says success False, its steps True"),
        (lambda r: msgspec.structs.replace(r, total_reward=9.0), 5, "the record says total_reward 9.0, its steps 1.0"),
        (lambda r: msgspec.structs.replace(r, status="overflow"), 5, "the record says status overflow, its steps ok"),
        (lambda r: msgspec.structs.replace(r, kind="x"), 0, "the record says kind 'x', the environment 'kind 0'"),
        (lambda r: msgspec.structs.replace(r, task="other"), 0, "another task, seed or first observation"),
    ],
)
def test_a_record_that_was_changed_is_not_identical(
    tamper: Callable[[Trajectory], Trajectory], step: int, reason: str
) -> None:
    found = again(tamper(play()[0]))
    assert (found.result, found.step) == ("different", step)
    assert reason in found.reason


def test_what_hangs_is_given_up() -> None:
    found = again(play()[0], lambda: InjectedEnv(on_step=hang), seconds=0.05)
    assert found.result == "impossible"
    assert found.reason == "step 1 cannot be taken: step took longer than 0.05 s"


def test_environments_are_closed() -> None:
    log: list[InjectedEnv] = []
    (record,) = play()
    again(record, lambda: InjectedEnv(log=log))
    again(record, lambda: InjectedEnv(on_step=raising, log=log))
    assert [env.closed for env in log] == [1, 1]


def _stored(folder: Path, records: list[Trajectory], name: str = "train") -> Path:
    with TrajectoryWriter(folder / "trajectories" / f"{name}.ptj") as writer:
        for record in records:
            writer.append(record)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with six episodes of training and three of an evaluation."""
    suite = load_suite("alfworld/small:validation[:6]")
    for name, agent, count in (("train", RandomAgent(), 6), ("eval-oracle", OracleAgent(), 3)):
        episodes = [Episode(task=task, id=task.name, seed=1) for task in suite[:count]]
        _stored(tmp_path, asyncio.run(rollout(episodes, agent, make, RolloutLimits(max_turns=15))), name)
    return tmp_path


def test_the_command_says_identical(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["episodes", "of", "identical", "different", "impossible"],
        ["train", "6", "0", "0"],
        ["eval-oracle", "3", "0", "0"],
    ]


def test_the_command_chooses(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def counted(*options: str) -> dict[str, int]:
        assert main(["replay", str(run), "--json", *options]) == 0
        said = json.loads(capsys.readouterr().out)
        return {name: found["identical"] for name, found in said["stores"].items()}

    assert counted("--limit", "2") == {"train": 2, "eval-oracle": 2}
    assert counted("--store", "eval-oracle", "--only", "solved") == {"eval-oracle": 3}
    (chosen, *_) = read_trajectories(run / "trajectories" / "train.ptj")
    assert counted("--store", "train", "--episode", chosen.id) == {"train": 1}
    assert main(["replay", str(run / "trajectories" / "train.ptj"), "--only", "failed"]) == 0


def test_the_command_fails_on_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [Episode(task=task, id=task.name, seed=1) for task in load_suite("alfworld/small:test[:2]")]
    good, bad = asyncio.run(rollout(episodes, ScriptedAgent(["look", "inventory"]), make, RolloutLimits(max_turns=2)))
    bad.steps[1].action = "help"
    run = _stored(tmp_path, [good, bad])
    assert main(["replay", str(run)]) == 1
    shown = capsys.readouterr().out
    assert f"{bad.id} ({bad.task}) differs at step 2: action 'help': another observation" in shown
    assert "--- step 2, recorded" in shown
    assert main(["replay", str(run), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["identical"], said["different"]) == (False, 1, 1)
    assert said["episodes"][0]["step"] == 2


def test_the_command_fails_where_nothing_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _stored(tmp_path, play(3))
    assert main(["replay", str(run)]) == 1
    assert "3 cannot be replayed: unknown environment 'test/Injected-v0'" in capsys.readouterr().out


MODULE = """
import os, time
from palaestra import Env, Reset, Step, register

@register("sudden/End-v0")
class End(Env[str, str]):
    async def reset(self, *, seed=None, task=None, options=None):
        {reset}
        return Reset("Go.", {{}})

    async def step(self, action):
        {step}
        return Step("Gone.", 1.0, True, False, {{"success": True}})
"""


@pytest.mark.parametrize(
    ("reset", "step", "counted", "where", "said"),
    [
        ("pass", "pass", "identical", None, ""),
        ("pass", "os._exit(0)", "different", 1, "exited with code 0"),
        ("os._exit(0)", "pass", "different", 0, "exited with code 0"),
        ("pass", "time.sleep(30)", "impossible", None, "step 1 cannot be taken: step took longer than 1 s"),
    ],
)
def test_an_environment_that_ends_the_process_or_blocks_is_a_result(
    tmp_path: Path, reset: str, step: str, counted: str, where: int | None, said: str
) -> None:
    task = Task(env="sudden/End-v0", name="t", seed=0)
    run = _stored(tmp_path, [_ended(task)])
    (tmp_path / "sudden.py").write_text(MODULE.format(reset=reset, step=step))
    began = time.monotonic()
    command = [sys.executable, "-m", "palaestra", "replay", str(run), "--import", str(tmp_path / "sudden.py"), "--json"]
    done = subprocess.run([*command, "--call-seconds", "1"], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - began < 20
    found = json.loads(done.stdout)
    assert (done.returncode, found[counted]) == (0 if counted == "identical" else 1, 1), done.stdout + done.stderr
    if said:
        [episode] = found["episodes"]
        assert (episode["step"], said in episode["reason"]) == (where, True), episode


def _ended(task: Task) -> Trajectory:
    """The record of the one step of `MODULE`."""
    link = start_link(task.name, task.seed, "Go.")
    step = StepRecord(
        observation="Go.",
        action="end",
        reward=1.0,
        terminated=True,
        state_hash=next_link(link, "end", "Gone.", 1.0, True, False),
    )
    return Trajectory(
        id="0",
        env=task.env,
        task=task.name,
        task_seed=task.seed,
        start_hash=link,
        success=True,
        total_reward=1.0,
        steps=[step],
        final_observation="Gone.",
    )


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_a_file_without_a_whole_episode_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int) -> None:
    store = _stored(tmp_path, play()) / "trajectories" / "train.ptj"
    store.write_bytes(store.read_bytes()[:kept])
    assert main(["replay", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{store}: holds no whole episode\n"


def test_a_folder_without_trajectories_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="give a run directory"):
        stores_of(tmp_path)
    assert main(["replay", str(tmp_path)]) == 2
    assert main(["replay", str(_stored(tmp_path, play())), "--store", "tran"]) == 2
    assert "no trajectories 'tran'; it has train" in capsys.readouterr().err
