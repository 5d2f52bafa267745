"""A seat: the engine as one episode sees it, and the place among the episodes that run at once.

A parked episode has given its place to another one, and the engine has forgotten its conversation. Its environment goes
on with what it was doing; when the episode next asks for a completion it takes a place again, and is resumed with the
weights of that time. What it sampled before keeps its versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.agents.engines.base import Completion, Engine, Request
from palaestra.envs.places import Places


class Seat:
    """An `Engine` for one episode; `sit` before it begins, `leave` when it is over."""

    def __init__(self, engine: Engine, places: Places) -> None:
        self._engine, self._places = engine, places
        self._seated = False
        self._sessions: set[str] = set()

    @property
    def weight_version(self) -> int:
        """Of the engine."""
        return self._engine.weight_version

    @property
    def context_length(self) -> int:
        """Of the engine."""
        return self._engine.context_length

    async def sit(self, *, again: bool = False) -> None:
        """Wait for a place; who has sat before (`again`) goes before those who have not."""
        await self._places.take(first=again)
        self._seated = True

    def leave(self) -> None:
        """Give the place back, where the episode has one."""
        if self._seated:
            self._seated = False
            self._places.give_back()

    async def park(self) -> None:
        """Give the place, and what the engine knows of the episode, to others until it asks again."""
        self.leave()
        for session in list(self._sessions):
            await self._engine.release(session)

    async def generate(self, request: Request) -> Completion:
        """As the engine's, once there is a place."""
        if not self._seated:
            await self.sit(again=True)  # its agent's time runs
        self._sessions.add(request.session)
        return await self._engine.generate(request)

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """As the engine's."""
        await self._engine.update_weights(weights, version)

    async def release(self, session: str) -> None:
        """As the engine's."""
        self._sessions.discard(session)
        await self._engine.release(session)

    async def close(self) -> None:
        """The engine is others' too."""
