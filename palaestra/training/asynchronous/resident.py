"""A player that stays: it has an engine with weights of its own, so that episodes go on while the learner's change."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, cast

from palaestra.agents.attempt import together
from palaestra.agents.attention import use_plain_attention
from palaestra.agents.engines.base import Engine
from palaestra.agents.engines.supervised import SupervisedEngine
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.episode import Episode
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import language_agent
from palaestra.agents.planner import Planner
from palaestra.config import Recipe
from palaestra.envs.places import Places
from palaestra.errors import ConfigError
from palaestra.training.asynchronous.seat import Seat
from palaestra.training.player import InProcessPlayer, Player, Plays
from palaestra.trajectories.record import Trajectory


class AsyncPlayer(Plays, Protocol):
    """Plays any number of groups side by side, with weights that are handed over to it."""

    @property
    def restarts(self) -> int:
        """How often an engine had to be started again."""

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Play on with these from now on, episodes that have begun included.

        Args:
            weights: tensors by parameter name; they may change once this returns.
            version: noted on what is sampled with them.
        """

    async def park(self, episodes: Collection[str]) -> None:
        """Nobody waits for these (ids) any more: let others go first, and go on with them where there is room."""

    async def close(self) -> None:
        """Give back what it holds."""


class ResidentPlayer:
    """An `AsyncPlayer` in this process.

    Whenever nobody plays, a fresh engine takes over, so that what is sampled then depends on weights and seeds only.
    """

    def __init__(self, recipe: Recipe, loaded: LoadedModel, inner: InProcessPlayer) -> None:
        """Args:
        recipe: how to play.
        loaded: the model that the learner trains; it is copied.
        inner: knows where and within which limits.
        """
        self.recipe, self.inner = recipe, inner
        if loaded.model.device.type == "cpu":  # for the learner, as where it shares its model with an engine
            use_plain_attention(loaded.model)
        self.loaded = LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, loaded.name)
        self.engine = SupervisedEngine(self._start, restarts=recipe.trainer.restarts)
        self._agent = language_agent(self.loaded, recipe.agent, engine=self.engine, chat=inner.chat, name=recipe.name)
        self._places = Places(max(recipe.rollout.concurrency, 1))
        self._seats: dict[str, Seat] = {}
        self._playing = 0
        self._entering = asyncio.Lock()

    @property
    def restarts(self) -> int:
        """As `AsyncPlayer.restarts`."""
        return self.engine.restarted

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        """As `Player.play`, with the weights that were handed over last."""
        async with self._entering:
            if not self._playing:
                await self.engine.open(self.engine.weight_version)
            self._playing += 1
        try:
            if planner is not None:
                return await self._together(episodes, planner)
            return await together([self._one(episode) for episode in episodes])
        finally:
            self._playing -= 1

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """As `AsyncPlayer.update_weights`: a copy, between two calls of the model."""
        async with self._entering:
            if not self._playing:
                await self.engine.open(version)
        await self.engine.update_weights(weights, version)

    async def park(self, episodes: Collection[str]) -> None:
        """As `AsyncPlayer.park`."""
        for each in episodes:
            if each in self._seats:
                await self._seats[each].park()

    async def close(self) -> None:
        """Close the engine."""
        await self.engine.close()

    async def _one(self, episode: Episode) -> Trajectory:
        """An episode on a seat of its own."""
        seat = self._seats[episode.id] = Seat(self.engine, self._places)
        try:
            await seat.sit()
            (trajectory,) = await self.inner.play_with(self._agent.with_(engine=seat), [episode])
            return trajectory
        finally:
            seat.leave()
            del self._seats[episode.id]

    async def _together(self, episodes: Sequence[Episode], planner: Planner) -> list[Trajectory]:
        """A group that is played as a whole, on all of its places."""
        count = min(len(episodes), self._places.most)
        await self._places.take(count)
        try:
            return await self.inner.play_with(self._agent, episodes, planner)
        finally:
            for _ in range(count):
                self._places.give_back()

    async def _start(self, version: int) -> Engine:
        config = self.recipe.rollout
        ahead = (self.recipe.trainer.staleness + 1) * config.groups * config.group_size
        slots = max(1, min(ahead, config.concurrency))
        engine = TorchEngine(self.loaded.model, slots=slots, compiled=self.recipe.engine.compile)
        await engine.update_weights({}, version)
        return engine


def resident_player(recipe: Recipe, loaded: LoadedModel, player: Player) -> AsyncPlayer:
    """The player of an asynchronous run: `player` itself, where it can play while weights are handed over to it.

    Raises:
        ConfigError: it plays elsewhere, with weights that stay as they are for a whole call.
    """
    if hasattr(player, "update_weights"):
        return cast(AsyncPlayer, player)
    if type(player) is not InProcessPlayer:
        raise ConfigError(
            f"trainer.mode=async needs an engine in this process, and {type(player).__name__} plays elsewhere; use "
            "trainer.mode=sync"
        )
    return ResidentPlayer(recipe, loaded, player)
