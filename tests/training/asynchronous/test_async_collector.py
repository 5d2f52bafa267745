"""Collecting while the learner learns: what is begun, what survives a death, and what is learned from how often."""

import asyncio
import json
import random
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.levers import levers_recipe, register_levers

from palaestra.agents.episode import Episode
from palaestra.agents.planner import Planner
from palaestra.config import Recipe
from palaestra.envs.tasks import load_suite
from palaestra.errors import PalaestraError, TrainingError
from palaestra.training.asynchronous.collector import AsyncCollector
from palaestra.training.asynchronous.journal import Journal
from palaestra.training.asynchronous.ledger import Group
from palaestra.training.asynchronous.staleness import staleness_histogram
from palaestra.training.rounds import Rounds
from palaestra.training.rows import build_rows
from palaestra.training.sampling import TaskSampler
from palaestra.training.seams import Moment, Parts
from palaestra.trajectories.record import Node, StepRecord, Trajectory


class Killed(Exception):
    """Stands for a death of the process."""


def trajectory(episode: Episode, version: int, status: str = "ok", reward: float = 1.0) -> Trajectory:
    task = episode.task
    return Trajectory(
        id=episode.id,
        env=task.env,
        task=task.name,
        params=task.params,
        task_seed=task.seed,
        group=episode.group,
        seed=episode.seed,
        status=status,  # type: ignore[arg-type]
        total_reward=reward,
        nodes=[
            Node(ids=[1]),
            Node(ids=[2, 3], sampled=True, logprobs=[-1.0, -1.0], entropies=[1.0, 1.0], weight_version=version),
        ],
        steps=[StepRecord(observation="", action="look", reward=reward, completion=1)],
    )


@dataclass
class Players:
    """Plays an episode in a random number of turns of the event loop; some are cut off, some never end."""

    draw: random.Random
    failing: float = 0.0
    endless: frozenset[str] = frozenset()
    turns: int = 8
    """Most turns of the event loop."""
    version: int = 0
    restarts: int = 0
    played: list[str] = field(default_factory=list)
    parked: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets the endless ones end."""

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        return [await self._one(episode) for episode in episodes]

    async def _one(self, episode: Episode) -> Trajectory:
        version = self.version
        for _ in range(self.draw.randrange(self.turns)):
            await asyncio.sleep(0)
        if episode.id in self.endless:
            await self.go.wait()
        self.played.append(episode.id)
        status = "error" if self.draw.random() < self.failing else "ok"
        return trajectory(episode, version, status, self.draw.random())

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        self.version = version

    async def park(self, episodes: Collection[str]) -> None:
        self.parked += episodes

    async def close(self) -> None:
        pass


@dataclass
class Run:
    """What of a run is on the disk, and who kills it."""

    folder: Path
    recipe: Recipe
    draw: random.Random
    risk: float = 0.0
    failing: float = 0.0
    endless: frozenset[str] = frozenset()
    checkpoint: tuple[int, dict[str, Any], dict[int, list[str]]] = (0, {}, {})
    """Iteration, the collector's state, and what was learned from in each update up to there."""
    histogram: set[int] = field(default_factory=set)
    players: list[Players] = field(default_factory=list)

    def danger(self) -> None:
        if self.draw.random() < self.risk:
            raise Killed

    async def session(self) -> dict[int, list[str]]:
        """From the checkpoint to the end, or to a death."""
        iteration, state, learned = self.checkpoint
        learned = dict(learned)
        register_levers()
        player = Players(self.draw, self.failing, self.endless)
        self.players.append(player)
        sampler = TaskSampler(load_suite("levers:train"), self.recipe.rollout, self.recipe.seed)
        journal = Journal(self.folder / "pending.ptj")
        collector = AsyncCollector(self.recipe, Rounds(sampler, player, Parts(), build_rows), player, journal, dict)
        try:
            collector.load_state_dict(state, iteration)
            while iteration < self.recipe.budget.iterations:
                played = await collector.collect(Moment(iteration, self.recipe.budget.iterations))
                self.danger()
                await collector.update(lambda: None)
                self.danger()
                self.histogram |= set(staleness_histogram(played.trajectories, iteration))
                learned[iteration] = [t.id for t in played.trajectories]
                iteration += 1
                if iteration % self.recipe.checkpoint.every == 0:
                    self.checkpoint = iteration, json.loads(json.dumps(collector.state_dict())), dict(learned)
                    self.danger()
                    collector.saved()
                await collector.hand_over(iteration)
                for _ in range(self.draw.randrange(4)):
                    await asyncio.sleep(0)
                    self.danger()
            self.checkpoint = iteration, collector.state_dict(), learned
            return learned
        finally:
            await collector.close()

    def to_the_end(self) -> dict[int, list[str]]:
        for _ in range(200):
            try:
                return asyncio.run(self.session())
            except Killed:
                self.risk *= 0.9
        raise AssertionError("it never ended")


def recipe(folder: Path, *overrides: str) -> Recipe:
    return levers_recipe(folder, "trainer.mode=async", "trainer.staleness=2", "budget.iterations=6", *overrides)


def every_id(recipe: Recipe) -> list[str]:
    rollout = recipe.rollout
    return [
        f"{iteration}/{group}/{member}"
        for iteration in range(recipe.budget.iterations)
        for group in range(rollout.groups)
        for member in range(rollout.group_size)
    ]


@given(
    seed=st.integers(0, 10**6),
    staleness=st.integers(0, 3),
    quorum=st.sampled_from([1.0, 0.5]),
    every=st.integers(1, 3),
    failing=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=25, deadline=None)
def test_whatever_dies_no_group_is_lost_and_none_learned_from_twice(
    seed: int, staleness: int, quorum: float, every: int, failing: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        overrides = [f"trainer.staleness={staleness}", f"trainer.quorum={quorum}", f"checkpoint.every={every}"]
        run = Run(Path(name), recipe(Path(name), *overrides), random.Random(seed), risk=0.1, failing=failing)
        learned = run.to_the_end()
    ids = [each for iteration in learned.values() for each in iteration]
    assert len(ids) == len(set(ids))
    if quorum == 1:
        assert sorted(ids) == sorted(every_id(run.recipe))
        assert max(run.histogram) <= staleness
    groups = {each.rpartition("/")[0] for each in ids}
    assert groups == {each.rpartition("/")[0] for each in every_id(run.recipe)}
    assert min(run.histogram) >= 0


def test_what_was_in_flight_is_used_again(tmp_path: Path) -> None:
    run = Run(tmp_path, recipe(tmp_path, "checkpoint.every=1"), random.Random(3))

    async def dies_after_two() -> None:
        task = asyncio.create_task(run.session())
        while run.checkpoint[0] < 2:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(dies_after_two())
    waiting = {each for each in run.players[0].played if not any(each in ids for ids in run.checkpoint[2].values())}
    assert waiting, "something had ended that no update had"
    asyncio.run(run.session())
    again = waiting & set(run.players[1].played)
    assert not again, "the same weights had sampled it"


def test_a_group_is_complete_with_its_quorum_and_stragglers_come_later(tmp_path: Path) -> None:
    """Of group 0/1 one episode hangs; the learner goes on without it and has it later, against all four rewards."""
    settings_ = recipe(tmp_path, "trainer.quorum=0.75", "trainer.staleness=1", "budget.iterations=4")

    async def go() -> tuple[list[Any], Players]:
        register_levers()
        player = Players(random.Random(0), endless=frozenset({"0/1/2"}), turns=1)
        sampler = TaskSampler(load_suite("levers:train"), settings_.rollout, settings_.seed)
        journal = Journal(tmp_path / "pending.ptj")
        collector = AsyncCollector(settings_, Rounds(sampler, player, Parts(), build_rows), player, journal, dict)
        found = []
        for iteration in range(4):
            found.append(await collector.collect(Moment(iteration, 4)))
            await collector.update(lambda: None)
            await collector.hand_over(iteration + 1)
            if iteration == 2:
                player.go.set()
                for _ in range(5):
                    await asyncio.sleep(0)
        await collector.close()
        return found, player

    found, player = asyncio.run(go())
    ids = [[t.id for t in played.trajectories] for played in found]
    assert [len(each) for each in ids] == [12, 11, 12, 13], "until it is due, there are complete groups to take"
    assert "0/1/0" in ids[1]
    late = found[3]
    assert "0/1/2" in ids[3]
    assert player.parked == ["0/1/2"]
    batch = late.rows.batch
    mine = next(n for n, t in enumerate(late.rows.trajectories) if t.id == "0/1/2")
    group = batch.group[batch.traj == mine]
    assert int((batch.group == group).sum()) == 4, "the other three are there to be compared with"
    trained = batch.mask.any(1)
    assert [t.id for n, t in enumerate(late.rows.trajectories) if trained[batch.traj == n].any()] == [
        t.id for t in late.trajectories
    ]
    assert late.log["staleness_max"] == 3


def test_a_full_disk_ends_the_run_and_the_episode_is_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, recipe(tmp_path), random.Random(1))
    append, left = Journal.append, 7

    def full(journal: Journal, trajectory: Trajectory) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise PalaestraError("cannot write pending.ptj: No space left on device")
        append(journal, trajectory)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(PalaestraError, match="No space left"):
        asyncio.run(run.session())
    learned = run.to_the_end()
    assert sorted(each for ids in learned.values() for each in ids) == sorted(every_id(run.recipe))


def test_a_damaged_journal_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "pending.ptj").write_bytes(b"something else\n" * 9)
    run = Run(tmp_path, recipe(tmp_path), random.Random(1))
    with pytest.warns(UserWarning, match="played again"):
        learned = asyncio.run(run.session())
    assert sorted(each for ids in learned.values() for each in ids) == sorted(every_id(run.recipe))


def test_what_a_run_that_went_back_sampled_is_gone_for_good(tmp_path: Path) -> None:
    """From the file, too: a later session may have reached a version of that number again."""
    register_levers()
    settings_, suite = recipe(tmp_path), load_suite("levers:train")
    first, second = TaskSampler(suite, settings_.rollout, settings_.seed).group(0, 0, suite[0], 4)[:2]
    journal = Journal(tmp_path / "pending.ptj")
    journal.append(trajectory(first, 1))
    journal.append(trajectory(second, 3))
    journal.close()
    for version in (2, 5):
        journal = Journal(tmp_path / "pending.ptj")
        journal.forget_after(version)
        assert set(journal._known) == {first.id}
        journal.close()


def test_what_older_weights_sampled_than_a_group_begins_with_is_played_again(tmp_path: Path) -> None:
    register_levers()
    settings_ = recipe(tmp_path)
    sampler = TaskSampler(load_suite("levers:train"), settings_.rollout, settings_.seed)
    episodes = sampler.group(0, 0, sampler.suite[0], 4)
    journal = Journal(tmp_path / "pending.ptj")
    for version, episode in enumerate(episodes):
        journal.append(trajectory(episode, version))
    journal.close()
    journal, player = Journal(tmp_path / "pending.ptj"), Players(random.Random(0))
    collector = AsyncCollector(settings_, Rounds(sampler, player, Parts(), build_rows), player, journal, dict)
    group = Group(0, 0, 0, list(episodes), begun=2)
    collector._recall(group)
    assert list(group.over) == [episode.id for episode in episodes[2:]]
    asyncio.run(collector.close())


def test_an_interruption_does_not_hide_that_the_update_failed(tmp_path: Path) -> None:
    register_levers()
    settings_, player, begun = recipe(tmp_path), Players(random.Random(0)), threading.Event()
    sampler = TaskSampler(load_suite("levers:train"), settings_.rollout, settings_.seed)
    journal = Journal(tmp_path / "pending.ptj")
    collector = AsyncCollector(settings_, Rounds(sampler, player, Parts(), build_rows), player, journal, dict)

    def fail() -> None:
        begun.set()
        time.sleep(0.1)
        raise TrainingError("the loss is not finite")

    async def go() -> None:
        try:
            await collector.update(fail)
        finally:
            await collector.close()

    async def interrupted() -> None:
        task = asyncio.create_task(go())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(TrainingError, match="not finite"):
            await task

    asyncio.run(interrupted())


def test_an_interrupted_update_has_taken_nothing(tmp_path: Path) -> None:
    """A checkpoint between the choice of groups and the end of their update has the groups still to be learned from."""

    async def go() -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        register_levers()
        settings_ = recipe(tmp_path)
        player = Players(random.Random(0))
        sampler = TaskSampler(load_suite("levers:train"), settings_.rollout, settings_.seed)
        journal = Journal(tmp_path / "pending.ptj")
        collector = AsyncCollector(settings_, Rounds(sampler, player, Parts(), build_rows), player, journal, dict)
        played = await collector.collect(Moment(0, 6))
        before = collector.state_dict()
        collector.saved()
        await collector.update(lambda: None)
        after = collector.state_dict()
        await collector.close()
        return before, after, [t.id for t in played.trajectories]

    before, after, ids = asyncio.run(go())
    names = [{f"{g['iteration']}/{g['number']}" for g in state["groups"]} for state in (before, after)]
    groups = {each.rpartition("/")[0] for each in ids}
    assert groups <= names[0]
    assert not groups & names[1]
    assert (before["following"], after["following"]) == (0, 1)
    journal = Journal(tmp_path / "pending.ptj")
    assert set(ids) <= set(journal._known)
    journal.close()
