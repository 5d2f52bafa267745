"""What branches share: trained once, counted once, with the mean of its advantages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from dataclasses import replace as replace_parts
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.envs import timeless
from support.trees import ForkableEnv, UncertainAgent, branches, group
from support.updates import MIXES, assert_same, episodes, learner, recipe, update
from torch import Tensor

from palaestra.agents.branching import BranchRule
from palaestra.agents.rollout import RolloutLimits, rollout
from palaestra.agents.tree import TreePlanner
from palaestra.config import Recipe, convert
from palaestra.errors import DataError
from palaestra.training.algorithm import Algorithm, GroupAdvantage
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.branches import handed_on, shared_advantage, whole
from palaestra.training.gigpo import gigpo_advantage
from palaestra.training.rows import build_rows
from palaestra.training.seams import Advantage, Moment, Need, Parts, Shaped
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
        batch = build_rows(family).batch
        for left_out, a, e in ((2, 0.5, 0.0), (0, 2.0, 2.0), (1, 2.5, 4.0)):
            found = by_letter(shared_advantage(returns, batch, torch.arange(4) != left_out), batch)
            assert (found["A"], found["B"], found["E"]) == (a, a, e)

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


@dataclass(frozen=True)
class Dropped:
    """A filter, or selector, that leaves trajectories out."""

    traj: tuple[int, ...]

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        return ~torch.isin(batch.traj, torch.tensor(self.traj))


@dataclass(frozen=True)
class Doubled:
    """A shaper with a statistic of the batch."""

    requires: frozenset[Need] = frozenset()

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        assert batch.advantage is not None
        return Shaped(2 * batch.advantage, {"tokens": float(batch.trained.sum())})


class TestLeftOut:
    """Filters and selectors drop the row in which shared tokens are trained."""

    @staticmethod
    def prepared(batch: Batch, parts: Parts, advantage: Advantage = returns) -> Batch:
        algorithm = Algorithm("x", parts, advantage)
        return algorithm.prepare(algorithm.select(batch, Moment(0, 1)), Moment(0, 1))

    @pytest.mark.parametrize(
        ("lost", "expected", "homes"),
        [
            ((0,), {"A": 2.0, "B": 2.0, "E": 2.0, "F": 0.0, "G": 4.0, "H": 4.0}, {"A": 1, "B": 1, "E": 1}),
            ((1,), {"A": 2.5, "B": 2.5, "C": 1.0, "D": 1.0, "E": 4.0, "G": 4.0, "H": 4.0}, {"A": 0, "E": 2}),
            ((0, 1), {"A": 4.0, "B": 4.0, "E": 4.0, "G": 4.0, "H": 4.0}, {"A": 2, "B": 2, "E": 2}),
            ((0, 1, 2), {}, {}),
        ],
    )
    @pytest.mark.parametrize("seam", ["filters", "selectors"])
    def test_shared_tokens_are_trained_once_in_the_first_that_is_kept(
        self,
        family: list[Trajectory],
        seam: Literal["filters", "selectors"],
        lost: tuple[int, ...],
        expected: dict[str, float],
        homes: dict[str, int],
    ) -> None:
        played = build_rows(family).batch
        entropy = played.rollout_logprob * 0.5
        played = played.with_(extra={"more": entropy.clone()}, old_entropy=entropy)
        batch = self.prepared(played, Parts(**{seam: (Dropped(lost),)}, shapers=(Doubled(),)))
        assert batch.advantage is not None
        assert batch.old_entropy is not None
        letters = "".join(map(chr, batch.ids[batch.trained].tolist()))
        assert sorted(letters) == sorted([*expected, "X", "Y"]), "each exactly once"
        found = dict(zip(letters, batch.advantage[batch.trained].tolist(), strict=True))
        assert found == {letter: 2 * value for letter, value in (expected | {"X": 3.0, "Y": 3.0}).items()}
        assert not batch.advantage[~batch.trained].any()
        owner = dict(zip(letters, batch.traj[:, None].expand(batch.shape)[batch.trained].tolist(), strict=True))
        assert {letter: owner[letter] for letter in homes} == homes
        for column, factor in ((batch.rollout_logprob, 1), (batch.old_entropy, 0.5), (batch.extra["more"], 0.5)):
            assert column[batch.trained].tolist() == [-factor * ord(letter) for letter in letters]
            assert not column[~batch.mask].any()
        assert (batch.step_id[batch.mask] >= 0).all()
        assert (batch.step_id[~batch.mask] == -1).all()
        assert batch.notes["kept_fraction"] == (4 - len(lost)) / 4
        assert batch.notes["tokens"] == (10 if seam == "selectors" else len(letters))
        assert torch.equal(whole(batch).step_id, whole(played).step_id), "the places changed roles, and nothing else"

    def test_own_credit_is_the_heir_s(self, family: list[Trajectory]) -> None:
        played = build_rows(family).batch
        for parts in (Parts(filters=(Dropped((0,)),)), Parts(selectors=(Dropped((0,)),))):
            batch = self.prepared(played, replace_parts(parts, own_credit=True))
            assert batch.advantage is not None
            assert by_letter(batch.advantage, batch) | {"C": 0, "D": 0} == {
                **dict.fromkeys("ABEFCD", 0.0), **dict.fromkeys("GH", 4.0), **dict.fromkeys("XY", 3.0)
            }  # fmt: skip

    @pytest.mark.parametrize("old", ["learner", "rollout"])
    def test_a_broken_parent_is_as_if_it_had_never_been(self, family: list[Trajectory], old: str) -> None:
        """Where returns are not compared: the same gradients, old log-probs and all."""
        overrides = ["algorithm.name=reinforce", "algorithm.plugins=[branching, well_formed]"]
        found = []
        for first in (replace(family[0], status="error"), replace(family[0], status="overflow")):
            rows = build_rows([first, *family[1:]])
            assert len(rows.trajectories) == (3 if first.status == "error" else 4)
            found.append(update(learner(*overrides, old_logprobs=old, epochs=2), rows.batch)[1])
        assert_same(*found)

    def test_what_was_allowed_goes_along(self, family: list[Trajectory]) -> None:
        for t in family:
            for node in t.nodes:
                if node.sampled:  # a list as long as the letter's place in the alphabet; none for X
                    node.allowed = [[i for i in range(node.ids[0] - 64) if node.ids[0] != ord("X")]]
        batch = handed_on(build_rows(family).batch.keeping(torch.tensor([False, True, True, True])))
        assert batch.allowed is not None
        assert trained(batch) == "CDABEFGHXY"
        parts = batch.allowed.ids.tensor_split(batch.allowed.offsets[1:-1])
        assert [part.tolist() for part in parts] == [
            list(range(ord(letter) - 64)) if letter != "X" else [] for letter in trained(batch)
        ]

    @settings(max_examples=40, deadline=None)
    @given(k=st.integers(1, 9), seed=st.integers(0, 50), lost=st.sets(st.integers(0, 8)))
    def test_whatever_was_played(self, k: int, seed: int, lost: set[int]) -> None:
        played = build_rows(tree(k, seed)).batch
        kept = Dropped(tuple(lost))(played, Moment(0, 1))
        batch = handed_on(played.keeping(kept))
        every = {tuple(row[: at + 1]) for n, row in enumerate(whole(played).ids.tolist()) if kept[n]
                 for at in whole(played).mask[n].nonzero()[:, 0].tolist()}  # fmt: skip
        assert int(batch.trained.sum()) == len(every), "every beginning of a kept episode, once"
        if batch.copy_of is not None:
            copied = batch.copy_of >= 0
            assert batch.mask.flatten()[batch.copy_of[copied]].all()
            assert torch.equal(batch.ids.flatten()[batch.copy_of[copied]], batch.ids[copied])
        assert torch.equal(whole(batch).mask, whole(played).mask)


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
    assert not done.batch.advantage[~done.batch.mask].any()
    again = batch.with_(rollout_logprob=batch.rollout_logprob.masked_fill(batch.copy_of >= 0, 9.0))
    assert_same(update(learner(*overrides, mini_batches=2), again)[1], gradients, atol=0)


@pytest.mark.parametrize("overrides", MIXES, ids=lambda o: " ".join(x.removeprefix("algorithm.") for x in o))
def test_every_algorithm_learns_where_parents_are_left_out(overrides: list[str]) -> None:
    plugins = list(dict.fromkeys((*recipe(*overrides).algorithm.plugins, "well_formed")))
    played = grown()
    for number in (0, 4, 6):
        played[number].steps[-1].action = ""
    batch = build_rows(played).batch
    done, gradients = update(learner(*overrides, f"algorithm.plugins=[{', '.join(plugins)}]", mini_batches=2), batch)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert done.batch.copy_of is not None
    assert not (done.batch.mask & (done.batch.copy_of >= 0)).any()
    assert bool((done.batch.mask & ~batch.mask).any()), "children train what their parents had"


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
