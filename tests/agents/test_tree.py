from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.envs import InjectedEnv, hang, plain_reset, plain_step, timeless
from support.tokens import tiny
from support.trees import ForkableEnv, UncertainAgent, branches, group, jitter

from palaestra.agents.branching import BranchRule, split_budget
from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import FullContext, WindowContext
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.language import LanguageAgent
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import RandomAgent, ScriptedAgent
from palaestra.agents.tree import TreePlanner
from palaestra.envs.core import Step, Verdict
from palaestra.errors import ConfigError, EnvError, PalaestraError
from palaestra.trajectories.record import Trajectory

ALWAYS = BranchRule(alpha=1.0, gamma=0.0, rho=0.0)
NEVER = BranchRule(alpha=0.0, gamma=0.0)
QUICK = RolloutLimits(reset_seconds=0.05, act_seconds=0.05, step_seconds=0.05, fork_seconds=0.05, close_seconds=0.05)


def grow(
    k: int | Sequence[Episode],
    planner: TreePlanner | None = None,
    make: Any = ForkableEnv,
    agent: Any = None,
    limits: RolloutLimits | None = None,
    **options: Any,
) -> list[Trajectory]:
    episodes = group(k) if isinstance(k, int) else k
    agent = agent or UncertainAgent()
    work = rollout(episodes, agent, lambda _: make(), limits, planner=planner or TreePlanner(), **options)
    return asyncio.run(work)


def parent_of(child: Trajectory, trajectories: Sequence[Trajectory]) -> Trajectory:
    assert child.branch_of
    return next(t for t in trajectories if t.id == child.branch_of[0])


def assert_tree(trajectories: Sequence[Trajectory], episodes: Sequence[Episode]) -> None:
    """What holds of every tree, whatever grew it."""
    assert [t.id for t in trajectories] == [e.id for e in episodes]
    assert len({t.start_hash for t in trajectories if t.start_hash}) <= 1
    for t in branches(trajectories):
        parent, turns = parent_of(t, trajectories), t.branch_of[1]
        assert turns >= 1, "nothing branches before the first result"
        assert len(parent.steps) >= turns
        shared = [(s.observation, s.action, s.reward, s.state_hash, s.prompt, s.completion) for s in t.steps[:turns]]
        assert shared == [
            (s.observation, s.action, s.reward, s.state_hash, s.prompt, s.completion) for s in parent.steps[:turns]
        ]
        end = t.steps[turns - 1].completion + 1
        assert t.nodes[:end] == parent.nodes[:end], "a bit-identical prefix"
        if len(t.steps) > turns and len(parent.steps) > turns:
            assert t.steps[turns].observation == parent.steps[turns].observation
    own = [tuple(map(tuple, (n.ids for n in t.nodes if n.sampled))) for t in trajectories if t.status == "ok"]
    assert len(set(own)) == len(own), "no rollout is another's copy"


class TestShape:
    @settings(max_examples=60, deadline=None)
    @given(
        k=st.integers(1, 12),
        alpha=st.floats(-0.5, 1.5),
        gamma=st.floats(0, 2),
        rho=st.floats(0, 1),
        begin=st.none() | st.integers(1, 15),
        beta=st.floats(0, 4),
        decision=st.sampled_from(["bernoulli", "paper", "code"]),
        lagged=st.booleans(),
        places=st.integers(1, 14),
        turns=st.integers(1, 6),
        seed=st.integers(0, 99),
    )
    def test_every_tree_has_exactly_k_rollouts(
        self, k: int, begin: int | None, beta: float, lagged: bool, places: int, turns: int, seed: int, **rule: Any
    ) -> None:
        log: list[InjectedEnv] = []
        episodes = group(k, seed=seed)
        planner = TreePlanner(BranchRule(**rule), begin=begin, beta=beta, lagged=lagged)
        agent = UncertainAgent()
        limits = RolloutLimits(max_turns=turns, concurrency=places)
        played = grow(episodes, planner, lambda: ForkableEnv(log=log), agent, limits)
        assert_tree(played, episodes)
        assert all(t.status == "ok" and len(t.steps) == min(turns, 5) for t in played)
        assert [env.closed for env in log] == [1] * k
        assert [session.closed for session in agent.sessions] == [1] * k
        if k == 1 or turns == 1 or (begin or 0) >= k:
            assert not branches(played)

    def test_the_first_rollout_settles_how_many_begin(self) -> None:
        agent = UncertainAgent(lambda turn: 0.2 if turn == 0 else 1.4)
        played = grow(8, TreePlanner(ALWAYS), agent=agent)
        split = split_budget(8, 0.2, [1.4] * 4)
        assert played[0].meta["split"] == {"begin": split.begin, "root": 0.2, "tools": pytest.approx([1.4] * 4)}
        assert (split.begin, len(branches(played))) == (3, 5)
        assert [t.branch_of for t in played[: split.begin]] == [None] * split.begin
        assert not any(t.branch_of and t.branch_of[0] == "0/0/0" for t in played), "it is over before the others begin"
        assert "split" not in played[1].meta

    def test_a_fixed_number_begins(self) -> None:
        played = grow(6, TreePlanner(ALWAYS, begin=2))
        assert len(branches(played)) == 4
        assert not any("split" in t.meta for t in played)

    def test_one_that_begins_feeds_all_others(self) -> None:
        played = grow(4, TreePlanner(ALWAYS, begin=1))
        assert [t.branch_of and t.branch_of[1] for t in played] == [None, 1, 2, 2]
        assert_tree(played, group(4))

    def test_a_branch_waits_for_a_result_of_its_own(self) -> None:
        """One branch a path and result: with two turns there is one result, at which the first path branches once."""
        played = grow(6, TreePlanner(ALWAYS, begin=1), limits=RolloutLimits(max_turns=2))
        assert [t.branch_of for t in played] == [None, ("0/0/0", 1), None, ("0/0/2", 1), None, ("0/0/4", 1)]

    def test_what_is_missing_begins_at_the_prompt(self) -> None:
        played = grow(5, TreePlanner(NEVER, begin=1))
        assert not branches(played)
        assert_tree(played, group(5))

    def test_no_branching_is_independent_sampling(self) -> None:
        flat = asyncio.run(rollout(group(6), UncertainAgent(), lambda _: ForkableEnv()))
        tree = grow(6, TreePlanner(NEVER))
        for trajectory in tree:
            trajectory.meta.clear()
        assert timeless(tree) == timeless(flat)

    def test_branches_in_a_row_end_with_the_penalty(self) -> None:
        played = grow(12, TreePlanner(BranchRule(alpha=1.0, gamma=0.0, rho=1.0), begin=1))
        assert max(t.meta["branching"]["consecutive"] for t in played) == 1
        assert sum(t.meta["branching"]["children"] for t in played) == len(branches(played)) > 0

    def test_groups_do_not_influence_each_other(self) -> None:
        one, two = group(6, name="0/0"), group(6, name="0/1")
        mixed = [e for pair in zip(one, two, strict=True) for e in pair]
        together = {t.id: t for t in timeless(grow(mixed))}
        alone = timeless(grow(one)) + timeless(grow(two))
        assert [t.id for t in grow(mixed)] == [e.id for e in mixed]
        assert [together[t.id] for t in alone] == alone

    def test_episodes_without_a_group_are_alone(self) -> None:
        episodes = [replace(e, group="") for e in group(3)]
        assert [t.meta["split"]["begin"] for t in grow(episodes)] == [1, 1, 1]

    def test_on_done_sees_each_once_and_final(self) -> None:
        seen: list[bytes] = []
        played = grow(8, on_done=lambda t: seen.append(msgspec.json.encode(t)))
        assert sorted(seen) == sorted(map(msgspec.json.encode, played))

    @pytest.mark.parametrize("lagged", [False, True])
    def test_entropy_decides(self, lagged: bool) -> None:
        """Uncertain at the third turn only: what branches does so at the result before it, or one later by the lag."""
        agent = UncertainAgent(lambda turn: 1.0 if turn == 2 else 0.0)
        planner = TreePlanner(BranchRule(alpha=0.0, gamma=1.0, rho=0.0), begin=2, lagged=lagged)
        played = grow(6, planner, agent=agent)
        assert {t.branch_of[1] for t in branches(played)} == {3 if lagged else 2}

    def test_the_share_that_branches_is_the_probability(self) -> None:
        """First opportunity of lone paths, 600 of them: within 4 standard deviations of P."""
        rule = BranchRule(alpha=0.3, gamma=0.0)
        episodes = [e for n in range(600) for e in group(2, name=f"0/{n}")]
        played = grow(episodes, TreePlanner(rule, begin=1), limits=RolloutLimits(max_turns=2))
        share = len(branches(played)) / 600
        assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 600) ** 0.5


class TestTiming:
    @pytest.mark.parametrize("concurrency", [4, 8, 100])
    def test_nothing_depends_on_it(self, concurrency: int) -> None:
        async def late_step(env: ForkableEnv, action: str) -> Step[Any]:
            await jitter()
            return await plain_step(env, action)

        def late() -> ForkableEnv:
            return ForkableEnv(on_step=late_step, on_fork=jitter, on_close=jitter)

        episodes = [e for n in range(6) for e in group(4, name=f"0/{n}")]
        limits = RolloutLimits(concurrency=concurrency)
        assert timeless(grow(episodes, make=late, limits=limits)) == timeless(grow(episodes))

    @pytest.mark.parametrize("concurrency", [1, 3, 8, 17])
    def test_places_are_never_exceeded(self, concurrency: int) -> None:
        log: list[ForkableEnv] = []
        most = 0

        async def step(env: ForkableEnv, action: str) -> Step[Any]:
            nonlocal most
            most = max(most, sum(not each.closed for each in log))
            await asyncio.sleep(0)
            return await plain_step(env, action)

        episodes = [e for n in range(5) for e in group(8, name=f"0/{n}")]
        limits = RolloutLimits(concurrency=concurrency)
        played = grow(episodes, TreePlanner(ALWAYS), lambda: ForkableEnv(on_step=step, log=log), limits=limits)
        assert len(played) == 40
        assert most <= concurrency
        assert all(env.closed == 1 for env in log)


async def explode(*_: Any) -> Any:
    raise RuntimeError("broken")


class TestFailures:
    def test_a_failed_fork_is_no_branch(self) -> None:
        played = grow(6, TreePlanner(ALWAYS, begin=2), lambda: ForkableEnv(on_fork=explode))
        assert not branches(played)
        assert_tree(played, group(6))
        assert all(t.status == "ok" and t.meta["failed_forks"][0] == "RuntimeError: broken" for t in played[:5])

    @pytest.mark.parametrize("what", [hang, explode])
    def test_some_forks_fail(self, what: Any) -> None:
        count = 0

        async def every_second(env: ForkableEnv) -> None:
            nonlocal count
            count += 1
            if count % 2:
                await what(env)

        log: list[InjectedEnv] = []
        planner = TreePlanner(ALWAYS, begin=2)
        played = grow(6, planner, lambda: ForkableEnv(on_fork=every_second, log=log), limits=QUICK)
        assert_tree(played, group(6))
        assert all(t.status == "ok" for t in played)
        assert branches(played)
        assert any("failed_forks" in t.meta for t in played)
        assert all(env.closed == 1 for env in log)

    def test_an_environment_that_cannot_be_forked(self) -> None:
        played = grow(4, TreePlanner(ALWAYS), InjectedEnv)
        assert not branches(played)
        assert all(t.status == "ok" for t in played)
        assert any("cannot fork" in t.meta["failed_forks"][0] for t in played if "failed_forks" in t.meta)

    def test_a_fork_that_ignores_its_cancellation_ends_its_path_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("palaestra.agents.attempt.ABANDON_SECONDS", 0.05)
        gate: list[asyncio.Event] = []

        async def ignore(env: ForkableEnv) -> None:
            if len(gate):
                return
            gate.append(asyncio.Event())
            while not gate[0].is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate[0].wait()

        log: list[InjectedEnv] = []

        async def play() -> list[Trajectory]:
            try:
                return await rollout(
                    group(4),
                    UncertainAgent(),
                    lambda _: ForkableEnv(on_fork=ignore, log=log),
                    replace(QUICK, retries=0),
                    planner=TreePlanner(ALWAYS, begin=2),
                )
            finally:
                for event in gate:
                    event.set()
                await asyncio.sleep(0.1)

        played = asyncio.run(play())
        assert sorted(t.status for t in played) == ["ok", "ok", "ok", "timeout"]
        assert next(t for t in played if t.status == "timeout").error.endswith("and ignored its cancellation")
        assert all(env.closed == 1 for env in log), "what was left behind closes when it comes to an end"

    @pytest.mark.parametrize("what", [explode, hang])
    def test_a_parent_that_fails_leaves_its_children(self, what: Any) -> None:
        async def step(env: ForkableEnv, action: str) -> Step[Any]:
            if env.number == 0 and env.steps == 3:
                await what(env)
            return await plain_step(env, action)

        log: list[InjectedEnv] = []
        planner = TreePlanner(ALWAYS, begin=1)
        played = grow(4, planner, lambda: ForkableEnv(on_step=step, log=log), limits=QUICK)
        assert [t.status for t in played] == ["timeout" if what is hang else "error", "ok", "ok", "ok"]
        assert played[0].meta["branching"]["children"] > 0
        assert_tree(played, group(4))
        assert all(env.closed == 1 for env in log)

    def test_a_child_that_fails_leaves_its_parent(self) -> None:
        async def step(env: ForkableEnv, action: str) -> Step[Any]:
            if env.number == 1:
                raise RuntimeError("broken")
            return await plain_step(env, action)

        log: list[InjectedEnv] = []
        played = grow(3, TreePlanner(ALWAYS, begin=1), lambda: ForkableEnv(on_step=step, log=log))
        child = played[1]
        assert [t.status for t in played] == ["ok", "error", "ok"]
        assert (len(child.steps), child.branch_of, child.error) == (1, ("0/0/0", 1), "RuntimeError: broken")

    def test_what_fails_before_it_branches_is_played_again(self) -> None:
        log: list[InjectedEnv] = []

        async def flaky(env: ForkableEnv, action: str) -> Step[Any]:
            if env.number == 0 and env.steps == 3:
                raise RuntimeError("flaky")
            return await plain_step(env, action)

        played = grow(4, TreePlanner(), lambda: ForkableEnv(on_step=flaky, log=log))
        assert played[0].attempt == 1
        played[0].attempt = 0
        assert timeless(played) == timeless(grow(4))
        assert len(log) == 5

    @pytest.mark.parametrize("where", ["on_reset", "on_step", "on_fork", "on_close"])
    def test_no_environment_ends_the_program(self, where: str) -> None:
        async def leave(*_: Any) -> Any:
            sys.exit(3)

        played = grow(3, TreePlanner(ALWAYS, begin=1), lambda: ForkableEnv(**{where: leave}), limits=QUICK)
        assert len(played) == 3
        assert all(t.status == ("ok" if where in ("on_fork", "on_close") else "error") for t in played)

    def test_all_fail(self) -> None:
        played = grow(5, make=lambda: ForkableEnv(on_reset=explode))
        assert [t.status for t in played] == ["error"] * 5
        assert played[0].meta["split"]["begin"] == 3
        assert [t.attempt for t in played] == [1] * 5

    def test_grading_counts_in_branches_too(self) -> None:
        class Graded(ForkableEnv):
            async def verify(self) -> Verdict:
                return Verdict(0.25, False, {})

        played = grow(4, TreePlanner(ALWAYS, begin=1), Graded)
        assert len(branches(played)) == 3
        assert all((t.total_reward, t.steps[-1].reward, t.success) == (1.25, 1.25, False) for t in played)

    def test_an_agent_that_cannot_be_forked_is_refused_before_anything_is_played(self) -> None:
        class Plain:
            name = "plain"

            def session(self, **_: Any) -> Any:
                raise AssertionError

        with pytest.raises(ConfigError, match=r"'plain' has none"):
            grow(2, agent=Plain(), make=explode)

    @pytest.mark.parametrize("planner", [TreePlanner(), TreePlanner(begin=1)])
    def test_an_agent_without_entropies_is_refused(self, planner: TreePlanner) -> None:
        log: list[InjectedEnv] = []
        with pytest.raises(PalaestraError, match="does not say how uncertain"):
            grow(2, planner, lambda: ForkableEnv(log=log), RandomAgent())
        assert all(env.closed == 1 for env in log)

    def test_entropies_are_not_asked_for_where_nothing_reads_them(self) -> None:
        rule = BranchRule(alpha=0.7, gamma=0.0)
        for agent in (RandomAgent(), ScriptedAgent(list("abcde"))):
            played = grow(5, TreePlanner(rule, begin=2), agent=agent)
            assert all(t.status == "ok" and len(t.steps) == 5 for t in played)

    def test_what_on_done_raises_ends_all_and_closes_all(self) -> None:
        def on_done(trajectory: Trajectory) -> None:
            raise OSError("disk full")

        log: list[InjectedEnv] = []
        with pytest.raises(OSError, match="disk full"):
            grow(6, TreePlanner(begin=6), lambda: ForkableEnv(log=log), on_done=on_done)
        assert all(env.closed == 1 for env in log)


class TestCancellation:
    @pytest.mark.parametrize(
        ("where", "after"),
        [
            *((where, after) for where in ("on_reset", "on_step", "on_fork") for after in (0.0, 0.01, 0.03)),
            ("on_close", 0.0),
        ],
    )
    def test_leaves_nothing_open(self, where: str, after: float) -> None:
        log: list[InjectedEnv] = []
        agent = UncertainAgent()
        calls = 0

        async def sometimes(env: ForkableEnv, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 3:
                await hang(env)
            return await plain_step(env, *args) if where == "on_step" else await plain_reset(env)

        async def play() -> None:
            task = asyncio.create_task(
                rollout(
                    [e for n in range(3) for e in group(4, name=f"0/{n}")],
                    agent,
                    lambda _: ForkableEnv(**{where: sometimes}, log=log),
                    replace(QUICK, step_seconds=60, reset_seconds=60, fork_seconds=60),
                    planner=TreePlanner(ALWAYS, begin=2),
                )
            )
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(play())
        assert all(env.closed == 1 for env in log)
        assert all(session.closed == 1 for session in agent.sessions)


class RandomEngine(ScriptedEngine):
    """Says commands by its seed, with entropies by its seed."""

    def __init__(self, chat: ChatFormat) -> None:
        super().__init__(lambda request: chat.completion("look" if request.sampling.seed % 2 else "take key 2"))
        self.released: list[str] = []

    async def generate(self, request: Request) -> Completion:
        done = await super().generate(request)
        entropy = request.sampling.seed % 1000 / 1000
        return msgspec.structs.replace(done, entropies=[entropy] * len(done.ids))

    async def release(self, session: str) -> None:
        self.released.append(session)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_forked_conversation_is_the_one_it_came_from(window: int | None, system: str | None) -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    engine = RandomEngine(chat)
    context = WindowContext(window) if window else FullContext()
    agent = LanguageAgent(engine, chat, context=context, system=system)
    played = grow(10, TreePlanner(ALWAYS, begin=2), agent=agent)
    assert len(branches(played)) == 8
    # The engine saw exactly what the records say, from one session a rollout.
    prompts = [tuple(i for n in t.prompt_of(turn) for i in t.nodes[n].ids) for t in played for turn in range(5)]
    assert {tuple(request.prompt) for request in engine.requests} == set(prompts)
    assert len({request.session for request in engine.requests}) == len(set(engine.released)) == 10
    own = sum(len(t.steps) - (t.branch_of[1] if t.branch_of else 0) for t in played)
    assert len(engine.requests) == own, "no turn was generated twice"
    for t in branches(played):
        parent, turns = parent_of(t, played), t.branch_of[1]
        end = parent.steps[turns - 1].completion + 1
        assert all(mine is theirs for mine, theirs in zip(t.nodes[:end], parent.nodes[:end], strict=True))


def test_errors_name_what_cannot_be_forked() -> None:
    with pytest.raises(EnvError, match="cannot fork"):
        asyncio.run(InjectedEnv().fork())
