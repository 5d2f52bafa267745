"""The player of a cluster: groups go out to workers, trajectories come back, whatever dies on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import ray
from torch import nn

from palaestra.agents.agent import Agent
from palaestra.agents.attempt import Attempt, together
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.language import LanguageAgent
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import language_agent
from palaestra.agents.planner import Planner
from palaestra.agents.rollout import EnvMaker, Episode, RolloutLimits
from palaestra.agents.scripted import RandomAgent
from palaestra.config import AgentConfig, Recipe
from palaestra.distributed.crew import ActorWorker, Job, crew_size, dismiss, hire, hire_engines
from palaestra.distributed.dispatch import Dispatcher, JobAbandoned
from palaestra.distributed.policy import Policy, Refs
from palaestra.distributed.units import Unit, units_of
from palaestra.distributed.weights import pack, skeleton_of
from palaestra.distributed.worker import Orders
from palaestra.envs.registry import make
from palaestra.errors import ConfigError, EngineError
from palaestra.training.player import InProcessPlayer
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import decoded


class RayPlayer(InProcessPlayer):
    """Plays on the workers of a Ray cluster.

    An episode samples what it would sample here, up to rounding: its draws depend on its own seeds, and the weights are
    those of the learner when `play` or `evaluate` was called.
    """

    def __init__(self, recipe: Recipe, loaded: LoadedModel, imports: Sequence[str] = ()) -> None:
        super().__init__(recipe, loaded)
        size = crew_size(recipe)  # before the engines take room
        self._engines = hire_engines(recipe)
        self._workers = hire(recipe, size, imports, self._engines)
        cluster = recipe.cluster
        self._dispatcher: Dispatcher[Job, list[bytes]] = Dispatcher(
            self._workers, cluster.deaths, cluster.start_seconds
        )
        self._skeleton = ray.put(skeleton_of(loaded))
        self._serial = -1
        self._state: Any = None
        """Which weights were handed over last."""
        self._packing: Any = None
        """Where they are in the object store."""

    @property
    def workers(self) -> Sequence[ActorWorker]:
        """Those that were hired, dead or alive."""
        return self._workers

    @property
    def lost(self) -> int:
        """How often a worker was lost."""
        return self._dispatcher.lost

    async def close(self) -> None:
        """End every actor."""
        for worker in self._workers:
            worker.kill()
        dismiss(self._engines)
        await self._dispatcher.close()

    @asynccontextmanager
    async def _agent(
        self, episodes: int, settings: AgentConfig, version: int, weights: str = ""
    ) -> AsyncIterator[LanguageAgent]:
        engine = Elsewhere(settings, version)
        yield language_agent(
            self.loaded, settings, engine=engine, chat=self.chat, name=self.recipe.name, weights=weights
        )

    async def _rollout(
        self,
        episodes: Sequence[Episode],
        agent: Agent,
        make_env: EnvMaker,
        limits: RolloutLimits,
        *,
        planner: Planner | None = None,
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        if planner is not None:
            planner.check(agent)
        await self._dispatcher.staffed()
        orders = Orders(self._who(agent), limits, planner)
        results: list[Trajectory | None] = [None] * len(episodes)

        async def play(unit: Unit) -> None:
            for position, trajectory in zip(unit.positions, await self._played(unit, orders), strict=True):
                results[position] = trajectory
                if on_done:
                    on_done(trajectory)

        units = units_of(episodes, len(self._workers), whole=planner is not None)
        await together([play(unit) for unit in units])
        return [trajectory for trajectory in results if trajectory is not None]

    async def _played(self, unit: Unit, orders: Orders) -> list[Trajectory]:
        try:
            return [decoded(message) for message in await self._dispatcher.do(Job(unit, orders))]
        except JobAbandoned as error:
            return [self._given_up(episode, str(error)) for episode in unit.episodes]

    def _given_up(self, episode: Episode, reason: str) -> Trajectory:
        record = Attempt(episode, RandomAgent(self.recipe.name), make, self.limits, 0).record
        record.status, record.error = "error", reason
        return record

    def _who(self, agent: Agent) -> Policy | Agent:
        if not (isinstance(agent, LanguageAgent) and isinstance(agent.engine, Elsewhere)):
            return agent
        return agent.engine.policy or self._present(agent.engine.settings, agent.engine.weight_version)

    def _present(self, settings: AgentConfig, version: int) -> Policy:
        """With the learner's weights as they are now."""
        state = (version, _changes(self.loaded.model))
        if state != self._state:
            self._hand_over(self.loaded.model.state_dict())
            self._state = state
        return self._policy(settings, version)

    def _hand_over(self, weights: Mapping[str, Any]) -> None:
        """Into the object store once, however many workers fetch them."""
        self._packing = ray.put(pack(weights))
        self._serial += 1

    def _policy(self, settings: AgentConfig, version: int) -> Policy:
        refs = Refs(self._skeleton, self._packing)
        return Policy(self.recipe.name, settings, self._serial, version, refs)


class AsyncRayPlayer(RayPlayer):
    """Plays while weights change: an `AsyncPlayer`. Workers take new ones in the middle of an episode."""

    _held: Policy | None = None
    """With the weights that were handed over last."""

    @property
    def restarts(self) -> int:
        """As `AsyncPlayer.restarts`."""
        return self.lost

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """As `AsyncPlayer.update_weights`. Nobody is waited for: a worker that is slow, or not there, has them before
        it begins another episode."""
        self._hand_over(weights)
        self._held = policy = self._policy(self.recipe.agent, version)
        for worker in self._workers:
            worker.update(policy)
        for engine in self._engines:
            engine.update.remote(policy)

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        """As `Player.play`, with the weights that were handed over last."""
        async with self._agent(len(episodes), self.recipe.agent, version) as agent:
            return await self.play_with(
                agent.with_(engine=Elsewhere(self.recipe.agent, version, self._held)), episodes, planner
            )

    async def park(self, episodes: Collection[str]) -> None:
        """They keep their places: whoever begins next has those of other workers."""


class Elsewhere:
    """Stands for the engine of the policy, which workers have."""

    context_length = 0

    def __init__(self, settings: AgentConfig, version: int, policy: Policy | None = None) -> None:
        """`policy`: who plays; `None`: whoever has the learner's weights when the episodes are given out."""
        self.settings, self.weight_version, self.policy = settings, version, policy

    async def generate(self, request: Request) -> Completion:
        """Refuse."""
        raise EngineError("this agent plays on the workers; it has no engine here")

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Note the version."""
        self.weight_version = version

    async def release(self, session: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is held."""


def open_player(recipe: Recipe, loaded: LoadedModel, imports: Sequence[str] = ()) -> RayPlayer:
    """The player that the trainer's mode asks for; its workers are hired.

    Raises:
        ConfigError: no node has what the recipe asks for, or it asks for an engine that workers do not have.
    """
    if recipe.engine.kind != "torch":
        raise ConfigError(
            f"engine.kind={recipe.engine.kind} samples beside the learner; workers of a cluster have engine.kind=torch"
        )
    kind = AsyncRayPlayer if recipe.trainer.mode == "async" else RayPlayer
    return kind(recipe, loaded, imports)


def _changes(model: nn.Module) -> int:
    """A number that grows with every change in place: torch counts them, and `Optimiser` and `load_weights` those that
    it does not."""
    return sum(parameter._version for parameter in model.parameters())
