"""What tests of branching rollouts share: an environment that forks, and an agent that says how uncertain it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.envs import InjectedEnv

from palaestra.agents.agent import Decision
from palaestra.agents.episode import Episode
from palaestra.envs.core import Env, Info
from palaestra.envs.tasks import Task
from palaestra.trajectories.record import Node, Trajectory


class ForkableEnv(InjectedEnv):
    """`InjectedEnv` with a fork of its own; `on_fork` may fail first."""

    def __init__(
        self, *args: Any, on_fork: Callable[[ForkableEnv], Awaitable[None]] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.on_fork, self.more = on_fork, more

    async def fork(self, n: int = 1) -> list[Env[Any, Any]]:
        if self.on_fork:
            await self.on_fork(self)
        siblings = [type(self)(on_fork=self.on_fork, **self.more) for _ in range(n)]
        for sibling in siblings:
            sibling.seed, sibling.task, sibling.steps = self.seed, self.task, self.steps
            sibling.actions = list(self.actions)
        return [*siblings]


@dataclass
class UncertainSession:
    """Says a random command in some random tokens, each with a random entropy."""

    seed: int
    entropy: Callable[[int], float] | None
    nodes: list[Node] = field(default_factory=list)
    before: int = 0
    turn: int = 0
    closed: int = 0

    async def act(self, observation: str, info: Info) -> Decision:
        draw = random.Random(f"{self.seed}/{self.turn}")
        self.before, self.turn = len(self.nodes), self.turn + 1
        text = draw.choice(info["admissible_commands"])
        n = draw.randint(1, 4)
        entropies = [self.entropy(self.turn - 1) if self.entropy else 2 * draw.random() for _ in range(n)]
        self.nodes.append(Node(ids=[len(observation)]))
        ids = [draw.randrange(1 << 20) for _ in range(n)]
        self.nodes.append(Node(ids=ids, sampled=True, role="assistant", logprobs=[-1.0] * n, entropies=entropies))
        return Decision(text=text, completion=len(self.nodes) - 1)

    async def close(self) -> None:
        self.closed += 1


@dataclass
class UncertainAgent:
    """`entropy` by turn; random if not given."""

    entropy: Callable[[int], float] | None = None
    name: str = "uncertain"
    sessions: list[UncertainSession] = field(default_factory=list)

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> UncertainSession:
        self.sessions.append(UncertainSession(seed, self.entropy))
        return self.sessions[-1]

    def fork(self, session: UncertainSession, *, seed: int, env: Env[Any, Any] | None = None) -> UncertainSession:
        nodes = session.nodes[: session.before]
        self.sessions.append(UncertainSession(seed, self.entropy, nodes, turn=session.turn - 1))
        return self.sessions[-1]


def group(k: int, *, task: Task | None = None, name: str = "0/0", seed: int = 5) -> list[Episode]:
    """`k` episodes of one task."""
    task = task or Task(env="test/Injected-v0", name="task-0", seed=0)
    return [Episode(task=task, id=f"{name}/{member}", group=name, seed=seed) for member in range(k)]


def branches(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that branched off another."""
    return [t for t in trajectories if t.branch_of]


async def jitter(*_: Any) -> None:
    """Takes another time in every run: the process-wide generator."""
    await asyncio.sleep(random.random() * 0.002)
