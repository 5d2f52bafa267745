"""An engine that is started again when it fails, and told the newest weights; who waits for a completion never knows.

A request holds its whole prompt and its own seed, so nothing is lost but the work on it: another engine samples, from
the same weights, the same completion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from palaestra.agents.engines.base import Completion, Engine, Request
from palaestra.errors import EngineError, PalaestraError

StartEngine = Callable[[int], Awaitable[Engine]]
"""Starts an engine that has the newest weights, and knows that they are of this version."""


class SupervisedEngine:
    """An `Engine` around one that may die. `open` before anything else."""

    def __init__(self, start: StartEngine, *, restarts: int = 3) -> None:
        """Args:
        start: starts one.
        restarts: how often a request may find the engine broken before its error is raised.
        """
        self._start, self._restarts = start, restarts
        self._engine: Engine | None = None
        self._version = 0
        self._mending = asyncio.Lock()
        self._restart: asyncio.Task[None] | None = None
        """The last one: it is nobody's who waits for it, and goes on when they are cancelled."""
        self._closed = False
        self.restarted = 0
        """How often that was needed."""

    @property
    def weight_version(self) -> int:
        """Version of the weights in use."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._running.context_length

    async def open(self, version: int) -> None:
        """Start an engine, in place of the one that is there."""
        async with self._mending:
            self._version = version
            await self._replace()

    async def generate(self, request: Request) -> Completion:
        """As the engine's, whatever happens to it meanwhile.

        Raises:
            EngineError: it failed again and again, or was closed.
        """
        for attempt in range(self._restarts + 1):
            engine = self._running
            try:
                return await engine.generate(request)
            except EngineError:
                if attempt == self._restarts or self._closed:
                    raise
                await self._mend(engine)
        raise AssertionError

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """As the engine's; running requests go on with the new weights."""
        async with self._mending:  # a restart under way has the earlier weights, and ends first
            engine, self._version = self._running, version
            try:
                await engine.update_weights(weights, version)
                return
            except EngineError:
                if self._closed:
                    raise
        await self._mend(engine)

    async def release(self, session: str) -> None:
        """As the engine's; a broken one has forgotten it anyway."""
        with suppress(EngineError):
            await self._running.release(session)

    async def close(self) -> None:
        """Close the engine, and one that is being started; waiting requests fail."""
        self._closed = True
        if self._restart is not None:
            await asyncio.wait([self._restart])
        if self._engine is not None:
            await self._engine.close()

    @property
    def _running(self) -> Engine:
        if self._engine is None or self._closed:
            raise EngineError("the engine is closed")
        return self._engine

    async def _mend(self, broken: Engine) -> None:
        """Return once there is another one."""
        while self._engine is broken and not self._closed:
            if self._restart is None or self._restart.done():
                self._restart = asyncio.create_task(self._start_again(broken), name="palaestra-engine-restart")
                self._restart.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(self._restart)

    async def _start_again(self, broken: Engine) -> None:
        """Start another one, unless that was done meanwhile."""
        async with self._mending:
            if self._engine is broken and not self._closed:
                self.restarted += 1
                await self._replace()

    async def _replace(self) -> None:
        if self._engine is not None:  # it stays in its place meanwhile: who asks it fails, and waits for the next one
            with suppress(PalaestraError, OSError):
                await self._engine.close()
        self._engine = await self._start(self._version)
