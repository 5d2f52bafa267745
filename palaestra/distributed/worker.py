"""A worker: environments, agents and the engine that they ask, in one process on some node.

Episodes and engine sit together because they talk at every turn and the learner needs none of it: between two turns a
token never leaves the process, and what crosses the network is weights, tasks and finished trajectories.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from palaestra.agents.agent import Agent
from palaestra.agents.chat import ChatFormat
from palaestra.agents.engines.base import Completion, Engine, Request
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.episode import Episode, RolloutLimits
from palaestra.agents.language import LanguageAgent
from palaestra.agents.planner import Planner
from palaestra.agents.rollout import rollout
from palaestra.config import Recipe
from palaestra.distributed.weights import Skeleton, built, unpack
from palaestra.envs.registry import make
from palaestra.errors import EngineError
from palaestra.trajectories.store import encoded


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights to play with."""

    serial: int
    """Counts what the learner has handed over; nobody goes back to an earlier one."""
    version: int
    """Noted on what they sample."""
    refs: tuple[Any, ...]
    """Ray's reference to a `Packing`; wrapped, so that only who lacks it fetches it."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How episodes are to be played."""

    agent: Agent
    """Who plays. A language agent comes without engine and chat format: a worker has its own."""
    limits: RolloutLimits
    planner: Planner | None = None
    weights: Weights | None = None
    """Of a language agent."""


class Elsewhere:
    """Stands for the engine of an agent that will play on another machine."""

    context_length = 0

    def __init__(self, version: int = 0) -> None:
        self.weight_version = version

    async def generate(self, request: Request) -> Completion:
        """Refuse."""
        raise EngineError("this agent plays elsewhere; it has no engine here")

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Note the version."""
        self.weight_version = version

    async def release(self, session: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every worker is made with."""

    recipe: Recipe
    skeleton: Skeleton
    device: str
    """Of its engine."""
    slots: int
    """Of its engine: episodes that are computed at once."""
    imports: tuple[str, ...] = ()
    """Modules or files that register environments."""


class Worker:
    """What runs in the actor; all methods are called in one event loop."""

    def __init__(self, equipment: Equipment) -> None:
        from palaestra.cli.main import import_module_or_file

        torch.set_num_threads(max(1, equipment.recipe.model.threads))
        for name in equipment.imports:
            import_module_or_file(name)
        self.equipment = equipment
        self.chat = ChatFormat.from_tokenizer(equipment.skeleton.tokenizer)
        self._engine: Engine | None = None
        self._serial = -1
        self._updating = asyncio.Lock()

    async def ready(self) -> None:
        """Answer: whoever does is alive."""

    async def play(self, episodes: Sequence[Episode], orders: Orders) -> list[bytes]:
        """Trajectories in MessagePack, one per episode, in their order."""
        agent = orders.agent
        if isinstance(agent, LanguageAgent) and orders.weights is not None:
            engine = await self._engine_with(orders.weights)
            agent = replace(agent, engine=engine, chat=self.chat)
        played = await rollout(episodes, agent, make, orders.limits, planner=orders.planner)
        return [encoded(trajectory) for trajectory in played]

    async def _engine_with(self, weights: Weights) -> Engine:
        async with self._updating:
            if weights.serial > self._serial:
                await self._update(weights)
        assert self._engine is not None
        return self._engine

    async def _update(self, weights: Weights) -> None:
        (ref,) = weights.refs
        packing = await ref
        if self._engine is None:
            model = built(self.equipment.skeleton, packing, self.equipment.device)
            self._engine = TorchEngine(model, slots=self.equipment.slots)
            await self._engine.update_weights({}, weights.version)
        else:
            await self._engine.update_weights(unpack(packing), weights.version)
        self._serial = weights.serial
