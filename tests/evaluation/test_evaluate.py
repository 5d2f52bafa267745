from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.envs import InjectedEnv, hang, plain_step, tasks

from palaestra.agents.agent import Agent
from palaestra.agents.rollout import RolloutLimits
from palaestra.agents.scripted import OracleAgent, RandomAgent, ScriptedAgent
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import ConfigError, DataError
from palaestra.evaluation.evaluate import evaluate, plan_episodes
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

SUITE = TaskSuite("injected", "test", 10, lambda i: tasks(10)[i])


def run(agent: Agent, suite: Any = SUITE, **options: Any) -> EvalResult:
    options.setdefault("make_env", lambda _: InjectedEnv())
    return asyncio.run(evaluate(suite, agent, **options))


def timeless(result: EvalResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__struct_fields__ if name != "seconds"}


def test_every_task_once() -> None:
    result = run(OracleAgent(), temperature=0.5)
    assert (result.suite, result.agent, result.n, result.temperature) == ("injected:test", "oracle", 10, 0.5)
    assert result.success.value == 1.0
    assert {kind: row.success.n for kind, row in result.by_kind.items()} == {"kind 0": 5, "kind 1": 5}
    assert (result.env_steps, result.length, result.seconds > 0) == (50, 5.0, True)


def test_more_episodes_than_tasks_begin_again_with_other_draws(tmp_path: Path) -> None:
    run(RandomAgent(), episodes=25, store=tmp_path / "e.ptj")
    played = sorted(read_trajectories(tmp_path / "e.ptj"), key=lambda t: int(t.id.rpartition("/")[2]))
    assert [t.task for t in played] == [f"task-{i % 10}" for i in range(25)]
    first, again = (tuple(step.action for step in t.steps) for t in (played[0], played[10]))
    assert played[0].steps[0].observation == played[10].steps[0].observation
    assert first != again


def test_the_plan_begins_alike_whatever_its_length() -> None:
    assert plan_episodes(SUITE, 25, name="s")[:7] == plan_episodes(SUITE, 7, name="s")


def test_a_plain_list_of_tasks_is_a_suite() -> None:
    assert run(OracleAgent(), tasks(3), name="mine").suite == "mine"
    assert run(OracleAgent(), tasks(3)).n == 3


@pytest.mark.parametrize(("suite", "episodes"), [([], None), (SUITE, 0), (SUITE, -3)])
def test_nothing_to_play(suite: Any, episodes: int | None) -> None:
    with pytest.raises(ConfigError):
        run(OracleAgent(), suite, episodes=episodes)


def test_failures_count_as_failures() -> None:
    async def step(env: InjectedEnv, action: str) -> Step[str]:
        return await (hang if env.seed < 3 else plain_step)(env, action)

    result = run(
        OracleAgent(),
        make_env=lambda _: InjectedEnv(on_step=step),
        limits=RolloutLimits(step_seconds=0.02, retries=0),
        concurrency=4,
    )
    assert result.statuses == {"ok": 7, "timeout": 3}
    assert (result.n, result.success.value) == (10, 0.7)


class TestResume:
    def counting(self, played: list[int], fail: frozenset[int] = frozenset()) -> dict[str, Any]:
        async def reset(env: InjectedEnv) -> Any:
            played.append(env.seed)
            if env.seed in fail:
                raise RuntimeError("down")
            return (f"You see desk {env.seed}.", env.info())

        return {"make_env": lambda _: InjectedEnv(on_reset=reset), "limits": RolloutLimits(retries=0)}

    def test_finished_episodes_are_not_played_again(self, tmp_path: Path) -> None:
        store = tmp_path / "e.ptj"
        run(RandomAgent(), episodes=4, store=store)
        played: list[int] = []
        resumed = run(RandomAgent(), store=store, **self.counting(played))
        assert played == [4, 5, 6, 7, 8, 9]
        assert len(list(read_trajectories(store))) == 10
        played.clear()
        assert timeless(run(RandomAgent(), store=store, **self.counting(played))) == timeless(resumed)
        assert played == []

    def test_stopped_and_resumed_is_the_same_as_never_stopped(self, tmp_path: Path) -> None:
        whole = run(RandomAgent())

        def stop(done: int, total: int, latest: Trajectory | None) -> None:
            if done == 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(RandomAgent(), store=tmp_path / "e.ptj", progress=stop, concurrency=2)
        with open(tmp_path / "e.ptj", "ab") as file:
            file.write(b"\x40\x00\x00\x00torn")
        assert len(list(read_trajectories(tmp_path / "e.ptj"))) == 6
        assert timeless(run(RandomAgent(), store=tmp_path / "e.ptj")) == timeless(whole)

    def test_errors_get_another_chance(self, tmp_path: Path) -> None:
        store = tmp_path / "e.ptj"
        first = run(RandomAgent(), store=store, **self.counting([], frozenset({2, 5})))
        assert first.statuses == {"error": 2, "ok": 8}
        played: list[int] = []
        assert run(RandomAgent(), store=store, **self.counting(played)).statuses == {"ok": 10}
        assert played == [2, 5]

    def test_fewer_episodes_than_stored(self, tmp_path: Path) -> None:
        run(RandomAgent(), store=tmp_path / "e.ptj")
        assert run(RandomAgent(), episodes=3, store=tmp_path / "e.ptj").n == 3

    @pytest.mark.parametrize(
        ("agent", "options", "what"),
        [
            (OracleAgent(), {}, "agent"),
            (RandomAgent(), {"seed": 1}, "seed"),
            (RandomAgent(), {"temperature": 0.0}, "temperature"),
            (RandomAgent(), {"suite": [*tasks(11)[1:]], "name": "injected:test"}, "task"),
            (RandomAgent(), {"limits": RolloutLimits(max_turns=3)}, "max_turns 50, not 3"),
            (RandomAgent(), {"suite": [replace(task, seed=7) for task in tasks(10)]}, "task seed"),
            (RandomAgent(), {"suite": [replace(task, params={"data": "b"}) for task in tasks(10)]}, "task parameters"),
        ],
    )
    def test_another_evaluations_store_is_refused(
        self, tmp_path: Path, agent: Agent, options: dict[str, Any], what: str
    ) -> None:
        run(RandomAgent(), store=tmp_path / "e.ptj")
        options = {"name": "injected:test", **options}
        with pytest.raises(DataError, match=f"another evaluation.*{what}"):
            run(agent, store=tmp_path / "e.ptj", **options)

    def test_deadlines_and_concurrency_may_change(self, tmp_path: Path) -> None:
        run(RandomAgent(), store=tmp_path / "e.ptj")
        limits = RolloutLimits(concurrency=3, step_seconds=7, retries=4)
        assert run(RandomAgent(), store=tmp_path / "e.ptj", limits=limits).n == 10

    def test_an_agent_of_another_identity_is_refused(self, tmp_path: Path) -> None:
        @dataclass(frozen=True)
        class Known(RandomAgent):
            weights: str = "a"

            @property
            def identity(self) -> dict[str, Any]:
                return {"weights": self.weights, "stops": (1, 2)}

        run(Known(), store=tmp_path / "e.ptj")
        assert run(Known(), store=tmp_path / "e.ptj").n == 10
        with pytest.raises(DataError, match="injected:test/0 was played with weights 'a', not 'b'; name another file"):
            run(Known(weights="b"), store=tmp_path / "e.ptj")

    def test_a_store_that_does_not_say_is_refused(self, tmp_path: Path) -> None:
        """One of an older version."""
        run(RandomAgent(), store=tmp_path / "new.ptj")
        with TrajectoryWriter(tmp_path / "old.ptj") as writer:
            for trajectory in read_trajectories(tmp_path / "new.ptj"):
                trajectory.meta.clear()
                writer.append(trajectory)
        with pytest.raises(DataError, match="does not say with which weights and settings"):
            run(RandomAgent(), store=tmp_path / "old.ptj")

    def test_without_resume_nothing_is_added_to_a_store(self, tmp_path: Path) -> None:
        run(RandomAgent(), store=tmp_path / "e.ptj", resume=False)
        with pytest.raises(ConfigError, match="earlier evaluation"):
            run(RandomAgent(), store=tmp_path / "e.ptj", resume=False)


def test_progress_is_told_of_stored_and_played_episodes(tmp_path: Path) -> None:
    run(OracleAgent(), episodes=4, store=tmp_path / "e.ptj")
    told: list[tuple[int, int, bool]] = []
    run(
        OracleAgent(), store=tmp_path / "e.ptj", progress=lambda done, n, latest: told.append((done, n, latest is None))
    )
    assert told == [(4, 10, True), *((i, 10, False) for i in range(5, 11))]


class Greeting(Env[str, str]):
    async def reset(self, **_: Any) -> Any:
        return Reset("Say hello.", {})

    async def step(self, action: str) -> Any:
        return Step("Hello.", float(action == "hello"), True, False, {"success": action == "hello"})


def test_environments_come_from_the_registry() -> None:
    register("test/Greeting-v0", Greeting)
    suite = [Task(env="test/Greeting-v0", name="greet")]
    result = asyncio.run(evaluate(suite, ScriptedAgent(["hello"])))
    assert result.success.value == 1.0


def test_an_unknown_environment_is_a_status() -> None:
    result = asyncio.run(evaluate([Task(env="test/Absent-v0", name="x")], ScriptedAgent(["hello"])))
    assert result.statuses == {"error": 1}


def test_no_torch() -> None:
    code = "import sys, palaestra.evaluation.evaluate, palaestra.agents.language; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
