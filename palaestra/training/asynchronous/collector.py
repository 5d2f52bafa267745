"""The asynchronous collector: groups are played while the learner learns, and updates take what is over.

    draw → begin → play (episodes end one by one, each into the journal)
             ↑        ↓
           room    choose → update      see `pacing`: who may begin, and whom the learner waits for

Groups begin at two moments: when the learner's weights are handed over, and when an update takes its groups. At both
the learner rests, so that choosers and allocators read trackers that nobody changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from palaestra.agents.attempt import together
from palaestra.agents.episode import Episode
from palaestra.config import Recipe
from palaestra.training.asynchronous.journal import Journal
from palaestra.training.asynchronous.ledger import Group, Ledger, usable
from palaestra.training.asynchronous.pacing import Pace
from palaestra.training.asynchronous.resident import AsyncPlayer
from palaestra.training.asynchronous.staleness import oldest, staleness_statistics
from palaestra.training.asynchronous.thread import in_thread
from palaestra.training.collector import Played
from palaestra.training.rounds import Rounds, refilled
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Trajectory

T = TypeVar("T")

Weights = Callable[[], Mapping[str, Any]]
"""The learner's present weights, by parameter name."""


class AsyncCollector:
    """A `Collector` whose episodes are played while the learner learns."""

    def __init__(
        self,
        recipe: Recipe,
        rounds: Rounds,
        player: AsyncPlayer,
        journal: Journal,
        weights: Weights,
        *,
        owns_player: bool = True,
    ) -> None:
        """Args:
        recipe: its `trainer` section says how far rollouts may run ahead.
        rounds: draws groups, plays what an algorithm asks for in addition, and makes rows.
        player: plays.
        journal: keeps episodes that are over.
        weights: what is handed over to the player.
            owns_player: close the player at the end; another one's goes on to evaluate, for example.
        """
        config = recipe.trainer
        self.recipe, self.rounds, self.player = recipe, rounds, player
        self.journal, self.weights, self.owns_player = journal, weights, owns_player
        quorum = config.quorum if rounds.parts.planner is None else 1.0
        self.ledger = Ledger(Pace(recipe.rollout.groups, config.staleness), quorum)
        self._version: int | None = None
        """Of the player's weights; `None` before it has any of this session's."""
        self._playing: dict[asyncio.Task[None], Group] = {}
        self._taken: tuple[dict[str, Any], list[Trajectory]] | None = None
        """The ledger before an update took groups from it, and their episodes, until the update is done."""
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._learner = ThreadPoolExecutor(1, thread_name_prefix="learner")

    async def collect(self, moment: Moment) -> Played:
        """Wait for the groups of the next update; others go on, or begin in their place."""
        await self._give_weights(moment.iteration)
        self._begin()
        while (chosen := self.ledger.choose()) is None:
            await self._next_event()
        places = [group.place for group in chosen]
        before = self.ledger.state_dict()
        fresh, witnesses = self.ledger.take(chosen)
        self._taken = before, [*fresh, *witnesses]
        await self.player.park([episode.id for group in chosen for episode in group.missing])
        self._begin()
        log = self.ledger.logs.pop(moment.iteration, {})
        played = await refilled(self.rounds, fresh, witnesses, places, log, moment)
        return replace(played, log={**played.log, **self._statistics(played.trajectories, moment.iteration)})

    async def update(self, work: Callable[[], T]) -> T:
        """In a thread."""
        done = await in_thread(self._learner, work)
        self._taken = None
        return done

    async def save(self, work: Callable[[], None]) -> None:
        """In the learner's thread, as episodes whose time runs are played meanwhile."""
        await in_thread(self._learner, work)

    async def hand_over(self, version: int) -> None:
        """Let everybody play on with the new weights, and more begin. Where nothing may be stale, those begin in the
        next iteration, as in the synchronous trainer."""
        await self._give_weights(version)
        if self.recipe.trainer.staleness:
            self._begin()

    def state_dict(self) -> dict[str, Any]:
        """The ledger, in which groups are as they were where an update took them and never was; the journal has the
        episodes."""
        self.journal.sync()
        return self._taken[0] if self._taken else self.ledger.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], version: int) -> None:
        """Groups that no update had are there again, with what the journal has of them."""
        self.journal.forget_after(version)
        if not state:
            return
        sampler = self.rounds.sampler
        self.ledger.load_state_dict(
            state, lambda iteration, number, place, size: sampler.group(iteration, number, sampler.suite[place], size)
        )
        for group in self.ledger.groups:
            if group.begun is not None:
                self._recall(group)

    def saved(self) -> None:
        """What has been learned from leaves the journal."""
        over = {each.id: each for group in self.ledger.groups for each in group.over.values()}
        over |= {each.id: each for each in (self._taken[1] if self._taken else ())}
        self.journal.replace(filter(usable, over.values()))

    async def close(self) -> None:
        """End what is being played."""
        tasks = list(self._playing)
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            try:
                if self.owns_player:
                    await self.player.close()
            finally:
                self._learner.shutdown()
                self.journal.close()

    async def _give_weights(self, version: int) -> None:
        if self._version is None:
            self.journal.forget_after(version)
        if self._version != version:
            await self.player.update_weights(self.weights(), version)
            self._version = version

    def _begin(self) -> None:
        """Begin as many groups as may begin, and go on with those of an earlier session."""
        assert self._version is not None
        room = self.ledger.room(self._version)
        while room > len(self.ledger.queued) and self.ledger.drawn < self.recipe.budget.iterations:
            self._draw()
        for group in self.ledger.queued[:room]:
            group.begun = self._version
            self._recall(group)
        for group in self.ledger.groups:
            if group.begun is not None and not group.complete and group not in self._playing.values():
                task = asyncio.create_task(self._play(group), name=f"group {group.iteration}/{group.number}")
                task.add_done_callback(self._ended)
                self._playing[task] = group

    def _draw(self) -> None:
        """The groups of one more iteration."""
        number, ledger = self.ledger.drawn, self.ledger
        moment = Moment(number, self.recipe.budget.iterations, self.recipe.seed)
        drawn = self.rounds.sampler.round(moment, self.rounds.parts)
        for position, (place, episodes) in enumerate(zip(drawn.places, drawn.groups, strict=True)):
            ledger.groups.append(Group(number, position, place, episodes))
        ledger.logs[number] = dict(drawn.log)
        ledger.drawn += 1

    def _recall(self, group: Group) -> None:
        """Take what the journal has of a group, unless weights older than those that the group begins with sampled it;
        a tree of rollouts is taken whole."""
        known = [each for episode in group.episodes if (each := self.journal.find(episode)) is not None]
        found = {each.id: each for each in known if oldest(each) >= (group.begun or 0)}
        if self.rounds.parts.planner is None or len(found) == len(group.episodes):
            group.over |= found

    async def _play(self, group: Group) -> None:
        """Play what is missing of a group."""
        version, planner = self._version or 0, self.rounds.parts.planner
        while group.missing:
            if planner is None:
                await together([self._episode(group, episode, version) for episode in group.missing])
                continue
            for trajectory in await self.player.play(group.episodes, version, planner):
                self._end(group, trajectory)

    async def _episode(self, group: Group, episode: Episode, version: int) -> None:
        (trajectory,) = await self.player.play([episode], version)
        self._end(group, trajectory)

    def _end(self, group: Group, trajectory: Trajectory) -> None:
        """An episode is over. A group of which nothing can be learned from is played again, as episodes are."""
        if usable(trajectory):
            self.journal.append(trajectory)
        group.over[trajectory.id] = trajectory
        if group.spoilt and group.attempts < self.recipe.rollout.retries:
            group.attempts += 1
            group.over.clear()
        self._changed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Take a task from the list, and note why it failed, where it did."""
        self._playing.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
        self._changed.set()

    async def _next_event(self) -> None:
        """Wait until an episode is over.

        Raises:
            PalaestraError: it cannot be kept, because the disk is full for example; or the player failed.
        """
        if self._error is None:
            await self._changed.wait()
        self._changed.clear()
        if self._error is not None:
            raise self._error

    def _statistics(self, trajectories: list[Trajectory], version: int) -> dict[str, Any]:
        ledger = self.ledger
        return {
            **staleness_statistics(trajectories, version, self.recipe.trainer.staleness),
            "groups_ready": sum(group.complete for group in ledger.outstanding),
            "groups_running": sum(not group.complete for group in ledger.outstanding),
            "groups_parked": len(ledger.parked),
            "engine_restarts": self.player.restarts,
        }
