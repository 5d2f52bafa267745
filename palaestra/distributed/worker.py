"""A worker: environments, agents and the engine that they ask, in one process on some node.

Episodes and engine sit together because they talk at every turn and the learner needs none of it: between two turns a
token never leaves the process, and what crosses the network is weights, tasks and finished trajectories.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from palaestra.distributed.weights import built, unpack
from palaestra.envs.registry import make
from palaestra.trajectories.store import encoded


class Refs(NamedTuple):
    """Ray's references; only who lacks a thing fetches it."""

    skeleton: Any
    """Of the `Skeleton`, which stays the same."""
    packing: Any
    """Of the `Packing`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The model that is being trained, and how it plays."""

    name: str
    settings: AgentConfig
    serial: int
    """Counts the weights that the learner has handed over; nobody goes back to earlier ones."""
    version: int
    """Of the weights: noted on what they sample."""
    refs: Refs


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
    imports: tuple[str, ...] = ()
    """Modules or files that register environments."""
    path: tuple[str, ...] = ()
    """Where else modules are looked for, as the process does that started the run."""


class Worker:
    """What runs in the actor; all methods are called in one event loop."""

    def __init__(self, setup: Setup) -> None:
        from palaestra.cli.main import import_module_or_file

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

    async def _agent(self, policy: Policy) -> LanguageAgent:
        async with self._updating:
            if policy.serial > self._serial:
                await self._update(policy)
        assert self._engine is not None
        if policy.settings not in self._agents:
            self._agents[policy.settings] = language_agent(
                self._loaded, policy.settings, engine=self._engine, chat=self._chat, name=policy.name
            )
        return self._agents[policy.settings]

    async def _update(self, policy: Policy) -> None:
        packing = await policy.refs.packing
        if self._engine is None:
            self._loaded = built(await policy.refs.skeleton, packing, self.setup.device)
            self._chat = ChatFormat.from_tokenizer(self._loaded.tokenizer)
            self._engine = TorchEngine(self._loaded.model, slots=self.setup.slots)
            await self._engine.update_weights({}, policy.version)
        else:
            await self._engine.update_weights(unpack(packing), policy.version)
        self._serial = policy.serial
