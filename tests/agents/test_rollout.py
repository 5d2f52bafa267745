from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.envs import COMMANDS, InjectedEnv, hang, plain_reset, plain_step, tasks, timeless

from palaestra.agents.agent import Decision
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import OracleAgent, RandomAgent, ScriptedAgent
from palaestra.envs.core import Env, Step
from palaestra.envs.hashing import chain
from palaestra.trajectories.record import Node, Trajectory

QUICK = RolloutLimits(reset_seconds=0.05, act_seconds=0.05, step_seconds=0.05, close_seconds=0.05)
WAIT = {"reset_seconds": 60.0, "act_seconds": 60.0, "step_seconds": 60.0, "close_seconds": 60.0}


def episodes(n: int) -> list[Episode]:
    return [Episode(task=task, id=f"0/{task.name}", group=task.name, seed=5) for task in tasks(n)]


def run(n: int, agent: Any, make: Callable[[], InjectedEnv] = InjectedEnv, **options: Any) -> list[Trajectory]:
    return asyncio.run(rollout(episodes(n), agent, lambda _: make(), **options))


def open_ones(log: list[InjectedEnv]) -> list[int]:
    return [env.number for env in log if env.closed == 0]


class TestRecord:
    def test_what_happened(self) -> None:
        (trajectory,) = run(1, ScriptedAgent(list("abcde")))
        assert (trajectory.id, trajectory.env, trajectory.task) == ("0/task-0", "test/Injected-v0", "task-0")
        assert (trajectory.agent, trajectory.group, trajectory.seed) == ("scripted", "task-0", 5)
        assert (trajectory.status, trajectory.error, trajectory.attempt) == ("ok", "", 0)
        assert trajectory.kind == "kind 0"
        assert [step.action for step in trajectory.steps] == list("abcde")
        assert trajectory.steps[0].observation == "You see desk 0. Your task is to: wait."
        assert trajectory.steps[1].observation == "1: you did a."
        assert trajectory.final_observation == "5: you did e."
        assert [step.reward for step in trajectory.steps] == [0, 0, 0, 0, 1]
        assert [step.terminated for step in trajectory.steps] == [False] * 4 + [True]
        assert (trajectory.success, trajectory.total_reward) == (True, 1.0)
        assert all(step.env_seconds > 0 and step.generate_seconds >= 0 for step in trajectory.steps)

    def test_state_hashes_are_a_chain_anybody_can_follow(self) -> None:
        (trajectory,) = run(1, ScriptedAgent(list("abcde")))
        state = chain("", "task-0", 0, trajectory.steps[0].observation)
        seen = [*(step.observation for step in trajectory.steps[1:]), trajectory.final_observation]
        for step, outcome in zip(trajectory.steps, seen, strict=True):
            state = chain(state, step.action, outcome, step.reward, step.terminated, False)
            assert step.state_hash == state

    def test_another_past_is_another_hash(self) -> None:
        (one,), (two,) = run(1, ScriptedAgent(list("abcde"))), run(1, ScriptedAgent(list("xbcde")))
        assert not {step.state_hash for step in one.steps} & {step.state_hash for step in two.steps}

    def test_max_turns_truncates(self) -> None:
        (trajectory,) = run(1, ScriptedAgent(["a"] * 9), limits=RolloutLimits(max_turns=3))
        assert trajectory.status == "ok"
        assert [step.truncated for step in trajectory.steps] == [False, False, True]
        assert not trajectory.success
        (whole,) = run(1, ScriptedAgent(["a"] * 9))
        hashes = [step.state_hash for step in trajectory.steps]
        assert hashes == [step.state_hash for step in whole.steps[:3]], "the driver's limit is not the environment's"

    def test_an_environment_that_truncates(self) -> None:
        async def step(env: InjectedEnv, action: str) -> Step[str]:
            return Step("late", 0.5, False, True, env.info(success=False))

        (trajectory,) = run(1, RandomAgent(), lambda: InjectedEnv(on_step=step))
        assert (len(trajectory.steps), trajectory.steps[0].truncated) == (1, True)
        assert (trajectory.success, trajectory.total_reward) == (False, 0.5)

    def test_refused_actions_are_marked(self) -> None:
        async def step(env: InjectedEnv, action: str) -> Step[str]:
            return Step("Nothing happens.", 0.0, env.steps == 2, False, env.info(invalid=env.steps == 1))

        (trajectory,) = run(1, RandomAgent(), lambda: InjectedEnv(on_step=step))
        assert [step.invalid for step in trajectory.steps] == [True, False]

    def test_the_environment_is_reset_with_task_and_its_seed(self) -> None:
        log: list[InjectedEnv] = []
        run(3, OracleAgent(), lambda: InjectedEnv(log=log))
        assert [(env.seed, env.task.name) for env in log if env.task] == [(i, f"task-{i}") for i in range(3)]

    def test_nothing_to_play(self) -> None:
        assert run(0, RandomAgent()) == []


class TestManyAtOnce:
    def test_500_concurrent_in_order(self) -> None:
        playing, most = 0, 0

        async def reset(env: InjectedEnv) -> Any:
            nonlocal playing, most
            playing += 1
            most = max(most, playing)
            return await plain_reset(env)

        async def step(env: InjectedEnv, action: str) -> Step[str]:
            nonlocal playing
            await asyncio.sleep(random.Random(env.seed * 7 + env.steps).random() * 0.01)
            outcome = await plain_step(env, action)
            playing -= outcome.terminated
            return outcome

        log: list[InjectedEnv] = []
        order: list[str] = []
        trajectories = run(
            500,
            RandomAgent(),
            lambda: InjectedEnv(reset, step, log=log),
            limits=RolloutLimits(concurrency=500, **WAIT),
            on_done=lambda trajectory: order.append(trajectory.id),
        )
        assert most == 500
        assert [t.task for t in trajectories] == [f"task-{i}" for i in range(500)]
        assert all(t.status == "ok" and t.success for t in trajectories)
        assert sorted(order) == sorted(t.id for t in trajectories)
        assert order != [t.id for t in trajectories], "they finished in another order than they are returned in"
        assert open_ones(log) == []

    @pytest.mark.parametrize("concurrency", [1, 7, 100])
    def test_results_do_not_depend_on_timing(self, concurrency: int) -> None:
        async def jitter(env: InjectedEnv, action: str) -> Step[str]:
            await asyncio.sleep(random.random() * 0.003)  # the process-wide generator: every run differs
            return await plain_step(env, action)

        calm = timeless(run(40, RandomAgent()))
        limits = RolloutLimits(concurrency=concurrency, **WAIT)
        assert timeless(run(40, RandomAgent(), lambda: InjectedEnv(on_step=jitter), limits=limits)) == calm

    def test_members_of_a_group_differ(self) -> None:
        task = tasks(1)[0]
        group = [Episode(task=task, id=f"0/0/{i}", group="0/0", seed=1) for i in range(4)]
        played = asyncio.run(rollout(group, RandomAgent(), lambda _: InjectedEnv()))
        assert len({tuple(step.action for step in t.steps) for t in played}) > 1
        assert len({t.steps[0].observation for t in played}) == 1

    def test_concurrency_is_bounded(self) -> None:
        log: list[InjectedEnv] = []
        most = 0

        async def step(env: InjectedEnv, action: str) -> Step[str]:
            nonlocal most
            most = max(most, len(open_ones(log)))
            await asyncio.sleep(0)
            return await plain_step(env, action)

        run(20, RandomAgent(), lambda: InjectedEnv(on_step=step, log=log), limits=RolloutLimits(concurrency=4))
        assert most == 4


async def explode(env: InjectedEnv, *_: Any) -> Any:
    raise RuntimeError("broken\nfor good")


async def time_out_inside(env: InjectedEnv, *_: Any) -> Any:
    raise TimeoutError("socket")


async def cancel_inside(env: InjectedEnv, *_: Any) -> Any:
    raise asyncio.CancelledError


async def odd_observation(env: InjectedEnv, *_: Any) -> Any:
    return Step(3, 0.0, False, False, {})


async def odd_reward(env: InjectedEnv, *_: Any) -> Any:
    return Step("x", float("nan"), False, False, {})


async def answer_late(env: InjectedEnv, *args: Any) -> Any:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return await plain_step(env, *args)


async def odd_shape(env: InjectedEnv, *_: Any) -> Any:
    return "x", 0.0


async def leave(env: InjectedEnv, *_: Any) -> Any:
    sys.exit(3)


async def interrupt(env: InjectedEnv, *_: Any) -> Any:
    raise KeyboardInterrupt


class Panic(BaseException):
    """As Rust's panics come out of an extension."""


async def panic(env: InjectedEnv, *_: Any) -> Any:
    raise Panic("x")


class TestFailures:
    def test_what_ignores_its_cancellation_is_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("palaestra.agents.attempt.ABANDON_SECONDS", 0.05)
        released: list[asyncio.Event] = []

        async def ignore(env: InjectedEnv, action: str) -> Any:
            if env.seed != 1:
                return await plain_step(env, action)
            released.append(asyncio.Event())
            while not released[-1].is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released[-1].wait()

        async def play() -> list[Trajectory]:
            try:
                return await rollout(episodes(3), OracleAgent(), lambda _: InjectedEnv(on_step=ignore), QUICK)
            finally:
                for event in released:
                    event.set()

        first, second, third = asyncio.run(play())
        assert (first.status, third.status) == ("ok", "ok")
        assert (second.status, second.attempt) == ("timeout", 1)
        assert second.error == "step took longer than 0.05 s and ignored its cancellation"

    @pytest.mark.parametrize(
        ("where", "what", "status", "error"),
        [
            ("on_reset", explode, "error", "RuntimeError: broken for good"),
            ("on_step", explode, "error", "RuntimeError: broken for good"),
            ("on_reset", hang, "timeout", "reset took longer than 0.05 s"),
            ("on_step", hang, "timeout", "step took longer than 0.05 s"),
            ("on_step", answer_late, "timeout", "step took longer than 0.05 s"),
            ("on_step", time_out_inside, "error", "TimeoutError: socket"),
            ("on_step", cancel_inside, "error", "CancelledError"),
            ("on_step", odd_observation, "error", "type int"),
            ("on_step", odd_reward, "error", "reward nan"),
            ("on_step", odd_shape, "error", "ValueError: not enough values"),
            ("on_reset", odd_shape, "error", "AttributeError"),
        ],
    )
    def test_one_bad_environment_spoils_one_episode(self, where: str, what: Any, status: str, error: str) -> None:
        log: list[InjectedEnv] = []

        async def only_second(env: InjectedEnv, *args: Any) -> Any:
            plain: Any = plain_reset if where == "on_reset" else plain_step
            return await (what if env.seed == 1 else plain)(env, *args)

        first, second, third = run(3, OracleAgent(), lambda: InjectedEnv(**{where: only_second}, log=log), limits=QUICK)
        assert (first.status, third.status) == ("ok", "ok")
        assert (first.success, third.success) == (True, True)
        assert second.status == status
        assert error in second.error
        assert "\n" not in second.error
        assert (second.success, second.attempt) == (False, 1)
        assert [env.closed for env in log] == [1] * 4, "three episodes and one retry, all closed"

    @pytest.mark.parametrize("where", ["on_reset", "on_step", "on_close"])
    @pytest.mark.parametrize("what", [leave, interrupt, panic])
    def test_no_environment_ends_the_program(self, where: str, what: Any) -> None:
        async def only_second(env: InjectedEnv, *args: Any) -> Any:
            if env.seed == 1:
                return await what(env)
            return (
                None if where == "on_close" else await (plain_reset if where == "on_reset" else plain_step)(env, *args)
            )

        first, second, third = run(3, OracleAgent(), lambda: InjectedEnv(**{where: only_second}), limits=QUICK)
        assert (first.success, third.success) == (True, True)
        told = {
            leave: "sys.exit(3) was called; raise an error instead",
            interrupt: "KeyboardInterrupt",
            panic: "Panic: x",
        }
        said = second.meta["close_error"] if where == "on_close" else second.error
        assert said == told[what]
        assert second.status == ("ok" if where == "on_close" else "error")

    def test_where_python_handles_ctrl_c_itself_every_interrupt_counts(self) -> None:
        """Nothing tells the environment's from a real one there."""
        loop = asyncio.new_event_loop()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(
                rollout(episodes(1), OracleAgent(), lambda _: InjectedEnv(on_step=interrupt), QUICK)
            )
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()

    def test_making_the_environment_fails(self) -> None:
        def make() -> InjectedEnv:
            raise OSError("no more processes")

        (trajectory,) = run(1, RandomAgent(), make)
        assert (trajectory.status, trajectory.error) == ("error", "OSError: no more processes")

    def test_a_retry_begins_afresh_with_the_same_seeds(self) -> None:
        log: list[InjectedEnv] = []

        async def flaky(env: InjectedEnv, action: str) -> Step[str]:
            if env.number < 2 and env.steps == 3:
                raise RuntimeError("flaky")
            return await plain_step(env, action)

        (trajectory,) = run(
            1, RandomAgent(), lambda: InjectedEnv(on_step=flaky, log=log), limits=RolloutLimits(retries=2)
        )
        assert (trajectory.status, trajectory.error, trajectory.attempt) == ("ok", "", 2)
        assert len(log) == 3
        assert log[0].actions == log[1].actions == log[2].actions[:3]
        (calm,) = run(1, RandomAgent())
        trajectory.attempt = 0
        assert timeless([trajectory]) == timeless([calm])

    def test_what_was_played_before_the_failure_is_kept(self) -> None:
        async def late(env: InjectedEnv, action: str) -> Step[str]:
            return await (explode if env.steps == 4 else plain_step)(env, action)

        (trajectory,) = run(1, RandomAgent(), lambda: InjectedEnv(on_step=late))
        assert len(trajectory.steps) == 3
        assert trajectory.final_observation == trajectory.steps[-1].action.join(["3: you did ", "."])

    def test_no_retries(self) -> None:
        log: list[InjectedEnv] = []
        run(1, RandomAgent(), lambda: InjectedEnv(on_reset=explode, log=log), limits=RolloutLimits(retries=0))
        assert len(log) == 1

    @pytest.mark.parametrize("close", [hang, explode])
    def test_a_bad_close_spoils_nothing(self, close: Any) -> None:
        trajectories = run(3, OracleAgent(), lambda: InjectedEnv(on_close=close), limits=QUICK)
        assert all(t.status == "ok" and t.success and t.meta["close_error"] for t in trajectories)

    def test_an_agent_that_hangs_or_fails(self) -> None:
        agent = SlowAgent(seconds=60.0)
        (trajectory,) = run(1, agent, limits=QUICK)
        assert (trajectory.status, trajectory.error) == ("timeout", "the agent took longer than 0.05 s")
        assert agent.opened == agent.closed == 2
        (trajectory,) = run(1, ScriptedAgent(["a"]))
        assert trajectory.status == "error"
        assert "script ended" in trajectory.error

    def test_an_agent_that_gives_up(self) -> None:
        class Overflowing(SlowAgent):
            async def act(self, observation: str, info: Any) -> Decision:
                return Decision(status="overflow")

        (trajectory,) = run(1, Overflowing())
        assert (trajectory.status, trajectory.attempt, trajectory.steps) == ("overflow", 0, [])

    def test_what_on_done_raises_ends_all_and_closes_all(self) -> None:
        log: list[InjectedEnv] = []

        async def step(env: InjectedEnv, action: str) -> Step[str]:
            return await (plain_step if env.seed == 3 else hang)(env, action)

        def on_done(trajectory: Trajectory) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            run(9, RandomAgent(), lambda: InjectedEnv(on_step=step, log=log), on_done=on_done)
        assert len(log) == 9
        assert open_ones(log) == []


class SlowAgent:
    """Its own session; counts what is opened and closed."""

    name = "slow"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.opened, self.closed = seconds, 0, 0
        self.nodes: list[Node] = []

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> SlowAgent:
        self.opened += 1
        return self

    async def act(self, observation: str, info: Any) -> Decision:
        await asyncio.sleep(self.seconds)
        return Decision(text=COMMANDS[0])

    async def close(self) -> None:
        self.closed += 1


class TestCancellation:
    @pytest.mark.parametrize("where", ["reset", "act", "step", "close"])
    def test_leaves_nothing_open(self, where: str) -> None:
        log: list[InjectedEnv] = []
        agent = SlowAgent(60.0 if where == "act" else 0.0)
        hooks = {} if where == "act" else {f"on_{where}": hang}

        async def main() -> int:
            limits = RolloutLimits(concurrency=8, **WAIT)
            job = asyncio.create_task(rollout(episodes(30), agent, lambda _: InjectedEnv(**hooks, log=log), limits))
            await asyncio.sleep(0.05)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            return len(asyncio.all_tasks()) - 1

        assert asyncio.run(main()) == 0
        assert len(log) == 8
        assert open_ones(log) == []
        assert agent.opened == agent.closed

    def test_an_environment_that_refuses_to_close_holds_nobody(self) -> None:
        async def main() -> float:
            limits = RolloutLimits(close_seconds=0.05)
            make = lambda _: InjectedEnv(on_step=hang, on_close=hang)  # noqa: E731
            job = asyncio.create_task(rollout(episodes(5), RandomAgent(), make, limits))
            await asyncio.sleep(0.02)
            began = time.perf_counter()
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            return time.perf_counter() - began

        assert asyncio.run(main()) < 10

    @pytest.mark.parametrize("times", [1, 2])
    def test_ctrl_c_closes_everything(self, times: int) -> None:
        """The first cancels; the second is raised wherever the program is, here in an environment."""
        log: list[InjectedEnv] = []

        async def step(env: InjectedEnv, action: str) -> Step[str]:
            if env.seed == 2:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            return await hang(env)

        with pytest.raises(KeyboardInterrupt):
            run(6, RandomAgent(), lambda: InjectedEnv(on_step=step, log=log))
        assert len(log) >= 3
        assert open_ones(log) == []


def test_the_driver_costs_little() -> None:
    """CPU time of a turn with an environment and an agent that cost nothing; on an idle core it is about 14 µs."""

    async def step(env: InjectedEnv, action: str) -> Step[str]:
        return Step("You look around.", 0.0, env.steps == 50, False, info)

    info = InjectedEnv().info()
    agent = ScriptedAgent(["look"] * 50)

    def cpu_per_step() -> float:
        began = time.process_time()
        trajectories = run(40, agent, lambda: InjectedEnv(on_step=step))
        return (time.process_time() - began) / sum(len(t.steps) for t in trajectories)

    assert min(cpu_per_step() for _ in range(3)) < 150e-6
