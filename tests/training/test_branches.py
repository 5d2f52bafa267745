"""What branches share: trained once, counted once, with the mean of its advantages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.envs import timeless
from support.trees import ForkableEnv, UncertainAgent, branches, group
from support.updates import MIXES, assert_same, episodes, learner, update
from torch import Tensor

from palaestra.agents.branching import BranchRule
from palaestra.agents.rollout import RolloutLimits, rollout
from palaestra.agents.tree import TreePlanner
from palaestra.config import Recipe, convert
from palaestra.errors import DataError
from palaestra.training.algorithm import GroupAdvantage
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.branches import shared_advantage, whole
from palaestra.training.gigpo import gigpo_advantage
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.statistics import rollout_statistics
from palaestra.trajectories.branches import branch_statistics
from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories
from palaestra.trajectories.views import entropy_by_turn


def tree(k: int, seed: int = 0, turns: int = 5) -> list[Trajectory]:
    planner = TreePlanner(BranchRule(alpha=0.8), begin=1)
    limits = RolloutLimits(max_turns=turns)
    played = rollout(group(k, seed=seed), UncertainAgent(), lambda _: ForkableEnv(), limits, planner=planner)
    trajectories = asyncio.run(played)
    for number, trajectory in enumerate(trajectories):
        trajectory.total_reward = float(number**2 % 5)
    return trajectories


def step(completion: int) -> StepRecord:
    return StepRecord(observation=f"{completion}", action="a", reward=0.0, completion=completion)


def line(id: str, ids: str, reward: float, branch_of: tuple[str, int] | None = None, **more: object) -> Trajectory:
    """One token a completion, named by a letter."""
    nodes = [
        node
        for letter in ids
        for node in (Node(ids=[0]), Node(ids=[ord(letter)], sampled=True, logprobs=[-ord(letter)], entropies=[1.0]))
    ]
    steps = [step(2 * turn + 1) for turn in range(len(ids))]
    return Trajectory(
        id=id, env="e", task="t", group="g", nodes=nodes, steps=steps, branch_of=branch_of, total_reward=reward, **more
    )


@pytest.fixture
def family() -> list[Trajectory]:
    """a plays A B C D; b leaves it after A B; c leaves b after A B E; d begins at the prompt."""
    return [
        line("a", "ABCD", 1.0),
        line("b", "ABEF", 0.0, ("a", 2)),
        line("c", "ABEGH", 4.0, ("b", 3)),
        line("d", "XY", 3.0),
    ]


def trained(batch: Batch) -> str:
    return "".join(map(chr, batch.ids[batch.mask].tolist()))


def by_letter(values: Tensor, batch: Batch) -> dict[str, float]:
    """Of trained tokens."""
    return {chr(i): v for i, v in zip(batch.ids[batch.mask].tolist(), values[batch.mask].tolist(), strict=True)}


def returns(batch: Batch) -> Tensor:
    """An estimator that one can follow: the trajectory's return."""
    return torch.where(batch.mask, batch.reward[:, None], 0.0).float()


class TestRows:
    def test_every_token_is_trained_where_it_was_sampled(self, family: list[Trajectory]) -> None:
        batch = build_rows(family).batch
        assert trained(batch) == "ABCDEFGHXY"
        assert batch.rollout_logprob[batch.mask].tolist() == [-float(ord(x)) for x in "ABCDEFGHXY"]
        assert batch.reward.tolist() == [1.0, 0.0, 4.0, 3.0], "each counts once in its group"
        assert batch.copy_of is not None
        copied = batch.copy_of >= 0
        assert not (copied & batch.mask).any()
        assert "".join(map(chr, batch.ids[copied].tolist())) == "ABABE"
        assert torch.equal(batch.ids.flatten()[batch.copy_of[copied]], batch.ids[copied])
        assert batch.mask.flatten()[batch.copy_of[copied]].all()

    @pytest.mark.parametrize(
        ("lost", "expected", "places"),
        [
            (["a"], "ABEFGHXY", {"A": "b", "B": "b"}),
            (["b"], "ABCDEGHXY", {"A": "a", "E": "c"}),
            (["a", "b"], "ABEGHXY", {"A": "c", "E": "c"}),
            (["c"], "ABCDEFXY", {"A": "a", "E": "b"}),
        ],
    )
    def test_what_is_left_out_takes_no_shared_token_along(
        self, family: list[Trajectory], lost: list[str], expected: str, places: dict[str, str]
    ) -> None:
        for t in family:
            t.status = "error" if t.id in lost else "ok"
        rows = build_rows(family)
        assert trained(rows.batch) == expected
        owner = torch.where(rows.batch.mask, rows.batch.traj[:, None], -1)
        where = by_letter(owner, rows.batch)
        assert {letter: rows.trajectories[int(where[letter])].id for letter in places} == places

    def test_without_branches_nothing_is_noted(self) -> None:
        assert build_rows([line("a", "AB", 1.0), line("d", "XY", 3.0)]).batch.copy_of is None

    def test_a_branch_that_does_not_fit_its_parent_is_corrupt(self) -> None:
        with pytest.raises(DataError, match="branched off"):
            build_rows([line("a", "AB", 1.0), line("b", "AXC", 0.0, ("a", 2))])
        with pytest.raises(DataError, match="branched off"):
            build_rows([line("a", "A", 1.0), line("b", "ABC", 0.0, ("a", 2))])

    def test_a_record_that_is_its_own_parent_is_read_all_the_same(self) -> None:
        assert trained(build_rows([line("a", "AB", 1.0, ("a", 1)), line("d", "XY", 0.0)]).batch) == "ABXY"

    @settings(max_examples=40, deadline=None)
    @given(k=st.integers(1, 9), seed=st.integers(0, 50), turns=st.integers(1, 5))
    def test_whatever_was_played(self, k: int, seed: int, turns: int) -> None:
        played = tree(k, seed, turns)
        batch = build_rows(played).batch
        assert int(batch.mask.sum()) == sum(t.sampled_tokens for t in played)
        every = [tuple(n.ids) for t in played for n in t.nodes if n.sampled]
        assert int(whole(batch).mask.sum()) == sum(map(len, every))
        assert int(batch.mask.sum()) == sum(map(len, set(every))), "completions are unique here, so: each once"
        assert sum(len(t.own_steps) for t in played) == rollout_statistics(played)["env_steps"]

    def test_windowed_contexts(self) -> None:
        """The turns of a cut context are rows of their own, and still have one place each."""
        a, b = line("a", "ABC", 1.0), line("b", "ABD", 0.0, ("a", 2))
        for t in (a, b):
            t.steps[2].prompt = [2, 3, 4]
        batch = build_rows([a, b]).batch
        assert (len(batch.ids), trained(batch)) == (4, "ABCD")
        assert by_letter(shared_advantage(returns, batch), batch) == {"A": 0.5, "B": 0.5, "C": 1.0, "D": 0.0}


class TestCredit:
    def test_shared_tokens_have_the_mean_of_all_that_go_through(self, family: list[Trajectory]) -> None:
        batch = build_rows(family).batch
        found = by_letter(shared_advantage(returns, batch), batch)
        through = {"A": [1, 0, 4], "B": [1, 0, 4], "C": [1], "D": [1], "E": [0, 4], "F": [0], "G": [4], "H": [4]}
        assert found == pytest.approx({k: sum(v) / len(v) for k, v in (through | {"X": [3], "Y": [3]}).items()})

    def test_a_mean_has_no_part_from_rows_that_were_left_out(self, family: list[Trajectory]) -> None:
        batch = build_rows(family).batch.with_(kept=torch.tensor([True, True, False, True]))
        found = by_letter(shared_advantage(returns, batch), batch)
        assert (found["A"], found["E"]) == (0.5, 0.0)

    def test_the_group_is_all_trajectories_with_their_full_returns(self, family: list[Trajectory]) -> None:
        batch = build_rows(family).batch
        alone = build_rows([line(t.id, "PQ", t.total_reward) for t in family]).batch
        each = GroupAdvantage()(alone)[:, 1].tolist()
        found = by_letter(shared_advantage(GroupAdvantage(), batch), batch)
        assert [found[x] for x in "DFHY"] == pytest.approx(each)
        assert found["A"] == pytest.approx(sum(each[:3]) / 3)

    def test_without_branches_nothing_changes(self) -> None:
        batch = build_rows([line("a", "AB", 1.0), line("d", "XY", 3.0)]).batch
        assert torch.equal(shared_advantage(returns, batch), returns(batch))
        assert whole(batch) is batch

    def test_estimators_that_differ_by_token(self, family: list[Trajectory]) -> None:
        """Each copy is as its original: an estimator may read any column there."""
        batch = build_rows(family).batch
        found = by_letter(shared_advantage(lambda b: b.rollout_logprob * b.mask, batch), batch)
        assert found == pytest.approx({x: -float(ord(x)) for x in "ABCDEFGHXY"})

    def test_step_level_credit_has_every_turn_of_every_trajectory(self, family: list[Trajectory]) -> None:
        batch = build_rows(family).batch

        def estimate(b: Batch) -> Tensor:
            turns = b.turns
            assert turns is not None
            values = gigpo_advantage(turns.reward, turns.group, turns.traj, turns.anchor, gamma=0.9, omega=1.0)
            return turns.on_tokens(values, b)

        assert shared_advantage(estimate, batch).isfinite().all()

    @pytest.mark.parametrize("credit", ["mean", "own"])
    def test_the_algorithm_applies_it(self, family: list[Trajectory], credit: str) -> None:
        config = {"name": "grpo", "plugins": ["branching"], "settings": {"branching": {"credit": credit}}}
        algorithm = build_algorithm(convert({"name": "t", "tasks": {"train": "x:train"}, "algorithm": config}, Recipe))
        batch = build_rows(family).batch
        prepared = algorithm.prepare(algorithm.select(batch, Moment(0, 1)), Moment(0, 1))
        assert prepared.advantage is not None
        expected = shared_advantage(GroupAdvantage(), batch) if credit == "mean" else GroupAdvantage()(batch)
        assert torch.equal(prepared.advantage, expected)
        assert (prepared.advantage[~prepared.mask] == 0).all()


def grown(seed: int = 0) -> list[Trajectory]:
    """Random talk in groups of four; the last two of each branched off the first, or off each other."""
    found = episodes(seed=seed)
    for at in range(0, len(found), 4):
        for child, parent in ((found[at + 2], found[at]), (found[at + 3], found[at + 2])):
            turns = min(2, len(parent.steps))
            end = parent.steps[turns - 1].completion + 1
            steps = [replace(step, completion=step.completion + end) for step in child.steps]
            child.nodes, child.steps = parent.nodes[:end] + child.nodes, parent.steps[:turns] + steps
            child.branch_of = parent.id, turns
    return found


@pytest.mark.parametrize("overrides", MIXES, ids=lambda o: " ".join(x.removeprefix("algorithm.") for x in o))
def test_every_algorithm_learns_from_branches(overrides: list[str]) -> None:
    """Without a change of its own: finite, and nothing is trained where a branch only has it from its parent."""
    batch = build_rows(grown()).batch
    assert batch.copy_of is not None
    done, gradients = update(learner(*overrides, mini_batches=2), batch)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert done.batch.advantage is not None
    assert done.batch.advantage.isfinite().all()
    assert not done.batch.advantage[~batch.mask].any()
    again = batch.with_(rollout_logprob=batch.rollout_logprob.masked_fill(batch.copy_of >= 0, 9.0))
    assert_same(update(learner(*overrides, mini_batches=2), again)[1], gradients, atol=0)


class TestCounts:
    def test_of_tokens_and_steps(self, family: list[Trajectory]) -> None:
        assert [t.sampled_tokens for t in family] == [4, 2, 2, 2]
        assert [len(t.own_steps) for t in family] == [4, 2, 2, 2]
        assert [(t.parent, t.branched_at) for t in family] == [("", 0), ("a", 2), ("b", 3), ("", 0)]
        statistics = rollout_statistics(family)
        assert (statistics["env_steps"], statistics["tokens_generated"]) == (10, 10)
        assert statistics["length"] == 15 / 4, "but an episode is as long as it is"

    def test_entropy_by_turn_counts_a_token_once(self, family: list[Trajectory]) -> None:
        for t in family[1:3]:
            for node in t.nodes[: 2 * t.branched_at]:
                node.entropies = [100.0] * len(node.entropies)
        assert entropy_by_turn(family) == [1.0] * 5

    def test_store_and_views_know_branches(self, tmp_path: Path) -> None:
        played = tree(6)
        with TrajectoryWriter(tmp_path / "t.ptj") as writer:
            for t in played:
                writer.append(t)
        found = list(read_trajectories(tmp_path / "t.ptj"))
        assert timeless(found) == timeless(played)
        assert [t.branched_at for t in found] == [t.branched_at for t in played]
        assert branch_statistics(found) == branch_statistics(played)


class TestStatistics:
    def test_rollouts_that_cannot_branch_have_none(self, family: list[Trajectory]) -> None:
        assert branch_statistics([line("a", "AB", 1.0)]) == {}
        assert "branches" not in rollout_statistics([line("a", "AB", 1.0)])

    def test_the_share_of_the_top_three(self) -> None:
        def child(id: str, parent: str) -> Trajectory:
            return line(id, "ABC", 0.0, (parent, 1), meta={"branching": {"children": 0, "consecutive": 1}})

        children = [child("1", "a"), child("2", "a"), child("3", "b"), child("4", "c"), child("5", "d")]
        root = line("a", "AB", 0.0, meta={"branching": {"consecutive": 4}, "split": {"begin": 3}, "failed_forks": [""]})
        few = [child("6", "x"), child("7", "x")]
        for t in few:
            t.group = "h"
        assert branch_statistics([root, *children]) == branch_statistics([root, *children, *few]) | {"branches": 5}
        assert branch_statistics(few)["branch_top3"] is None
        assert branch_statistics([root, *children]) == {
            "branches": 5,
            "branch_begin": 3.0,
            "branch_top3": 4 / 5,
            "branch_row": 4,
            "branch_failures": 1,
        }

    def test_as_played(self) -> None:
        played = tree(8)
        found = branch_statistics(played)
        assert found["branches"] == len(branches(played))
        assert found["branch_begin"] is None
        assert 0 < found["branch_top3"] <= 1
