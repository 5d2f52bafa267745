"""A watch on an actor: Ray finds those that died, and nobody but us those that hang."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError


@dataclass
class Watch:
    """While an answer of the actor is awaited it is asked for signs of life, and killed when it gives none."""

    actor: Any
    """It has a method `ready`, and is started again whenever it has died."""
    silence_seconds: float
    _awaited: int = field(default=0, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def answer(self, ref: Any) -> Any:
        """What a call of the actor comes to; the call ends with whoever waits for it.

        Raises:
            RayError: what was raised there, or that the actor is gone.
        """
        self._awaited += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watched())
        try:
            return await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        finally:
            self._awaited -= 1

    def close(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    async def _watched(self) -> None:
        while self._awaited:
            try:
                async with asyncio.timeout(self.silence_seconds):
                    await self.actor.ready.remote()
                await asyncio.sleep(min(10.0, self.silence_seconds / 4))
            except TimeoutError:
                ray.kill(self.actor, no_restart=False)
                return
            except RayError:
                return
