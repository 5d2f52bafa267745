"""The agent contract: what decides. An agent is shared by all episodes; a session is its memory of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from palaestra.envs.core import Env, Info
from palaestra.trajectories.record import Node, Status


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent decided in one turn."""

    text: str = ""
    """The action to send to the environment."""
    completion: int = -1
    """Index, in the session's nodes, of the completion that means it; -1 for agents without tokens."""
    prompt: list[int] | None = None
    """As `StepRecord.prompt`."""
    error: str = ""
    """Why the completion is no action, where it is none."""
    status: Status = "ok"
    """Anything but `ok` ends the episode here, with this status and without an action."""


class Session(Protocol):
    """One agent in one episode."""

    @property
    def nodes(self) -> list[Node]:
        """The token spans so far; empty for agents without tokens."""

    async def act(self, observation: str, info: Info) -> Decision:
        """Decide on what the environment just showed. A failure is raised; the driver makes a status of it."""

    async def close(self) -> None:
        """Release what the session holds. Called once, whatever came before."""


class Agent(Protocol):
    """Makes a session for each episode."""

    @property
    def name(self) -> str:
        """Under which trajectories and evaluations report it."""

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> Session:
        """Begin an episode.

        Args:
            seed: of all that the agent draws in this episode.
            env: the environment, for agents that may look inside (oracles).
        """


@runtime_checkable
class SupportsIdentity(Protocol):
    """An agent that says with what it plays, so that no stored evaluation goes on with something else."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Weights and settings: JSON-shaped values by what they are called."""


@runtime_checkable
class SupportsFork(Protocol):
    """An agent whose conversations can go on in two ways."""

    def fork(self, session: Any, *, seed: int, env: Env[Any, Any] | None = None) -> Session:
        """A session of its own that remembers what `session` did before its last `act`, as if that had not happened.

        Args:
            session: one of this agent's, in the middle of an episode; it goes on as if nothing had happened.
            seed: of all that the new one draws.
            env: its environment, for agents that may look inside.
        """


@runtime_checkable
class NotedSession(Protocol):
    """A session that has something to say of its episode: what it cost, for example."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the record shall keep in its `meta`; asked once, before `close`."""
