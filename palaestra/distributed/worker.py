"""A worker: environments, agents and the engine that they ask, in one process on some node.

Episodes and engine sit together, unless the recipe has engines elsewhere, because they talk at every turn and the
learner needs none of it: between two turns a token never leaves the process, and what crosses the network is weights,
tasks and finished trajectories.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from palaestra.agents.agent import Agent
from palaestra.agents.chat import ChatFormat
from palaestra.agents.engines.base import Engine
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.episode import Episode, RolloutLimits
from palaestra.agents.language import LanguageAgent
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import language_agent
from palaestra.agents.planner import Planner
from palaestra.agents.rollout import rollout
from palaestra.config import AgentConfig
from palaestra.distributed.engine import RemoteEngine
from palaestra.distributed.policy import Policy
from palaestra.distributed.weights import Skeleton, built, unpack
from palaestra.envs.registry import make
from palaestra.imports import import_module_or_file
from palaestra.trajectories.store import encoded


@dataclass(frozen=True, slots=True)
class Orders:
    """How episodes are to be played."""

    who: Policy | Agent
    """An agent that is no policy brings all that it needs."""
    limits: RolloutLimits
    planner: Planner | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is made with."""

    device: str
    """Of its engine."""
    slots: int
    """Of its engine: episodes that are computed at once."""
    threads: int = 1
    """CPU threads of torch."""
    compiled: bool = False
    """Whether its engine is; see `TorchEngine`."""
    imports: tuple[str, ...] = ()
    """Modules or files that register environments."""
    engines: tuple[Any, ...] = ()
    """Hosts of engines elsewhere; without any the worker has its own."""
    number: int = 0
    """Of the worker."""
    path: tuple[str, ...] = ()
    """Where else modules are looked for, as the process does that started the run."""
    silence_seconds: float = 300.0
    """An engine elsewhere that has not answered for so long is killed."""


class Worker:
    """What runs in the actor; all methods are called in one event loop."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        sys.path.extend(entry for entry in setup.path if entry not in sys.path)
        for name in setup.imports:
            import_module_or_file(name)
        self.setup = setup
        self._loaded: LoadedModel
        self._chat: ChatFormat
        self._engine: Engine | None = None
        """These three exist once there are weights."""
        self._agents: dict[AgentConfig, LanguageAgent] = {}
        self._serial = -1
        self._updating = asyncio.Lock()

    async def ready(self) -> None:
        """Answer: whoever does is alive."""

    async def play(self, episodes: Sequence[Episode], orders: Orders) -> list[bytes]:
        """Trajectories in MessagePack, one per episode, in their order."""
        agent = await self._agent(orders.who) if isinstance(orders.who, Policy) else orders.who
        played = await rollout(episodes, agent, make, orders.limits, planner=orders.planner)
        return [encoded(trajectory) for trajectory in played]

    async def update(self, policy: Policy) -> None:
        """Play on with these weights, unless later ones are here already."""
        async with self._updating:
            if policy.serial > self._serial:
                await self._take(policy)

    async def _agent(self, policy: Policy) -> LanguageAgent:
        await self.update(policy)
        assert self._engine is not None
        if policy.settings not in self._agents:
            self._agents[policy.settings] = language_agent(
                self._loaded, policy.settings, engine=self._engine, chat=self._chat, name=policy.name
            )
        return self._agents[policy.settings]

    async def _take(self, policy: Policy) -> None:
        if self._engine is None:
            skeleton: Skeleton = await policy.refs.skeleton
            self._chat = ChatFormat.from_tokenizer(skeleton.tokenizer)
            self._engine, self._loaded = await self._first(skeleton, policy)
        elif isinstance(self._engine, RemoteEngine):
            await self._engine.use(policy)
        else:
            await self._engine.update_weights(unpack(await policy.refs.packing), policy.version)
        self._serial = policy.serial

    async def _first(self, skeleton: Skeleton, policy: Policy) -> tuple[Engine, LoadedModel]:
        """An engine, and a model (without weights where the engine is elsewhere)."""
        setup = self.setup
        if setup.engines:
            name = ray.get_runtime_context().get_actor_id() or ""
            remote = RemoteEngine(setup.engines, setup.number, name, setup.silence_seconds)
            await remote.use(policy)
            return remote, LoadedModel(skeleton.model, skeleton.tokenizer, skeleton.name)
        loaded = built(skeleton, await policy.refs.packing, setup.device)
        own = TorchEngine(loaded.model, slots=setup.slots, compiled=setup.compiled)
        await own.update_weights({}, policy.version)
        return own, loaded
