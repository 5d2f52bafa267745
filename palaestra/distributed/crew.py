"""The crew: the workers of a run as Ray's actors, placed, watched and replaced."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from palaestra.config import Recipe
from palaestra.distributed.cluster import check_room, options_of, room
from palaestra.distributed.dispatch import WorkerLost
from palaestra.distributed.units import Unit
from palaestra.distributed.worker import Orders, Setup, Worker
from palaestra.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Job:
    """A unit, and how it is to be played."""

    unit: Unit
    orders: Orders

    def __len__(self) -> int:
        return len(self.unit)


@dataclass
class ActorWorker:
    """One actor, as the dispatcher sees it. Ray starts it again, on this node or another, whenever it has died."""

    actor: Any
    places: int
    start_seconds: float
    silence_seconds: float
    _playing: int = field(default=0, init=False)
    _watch: asyncio.Task[None] | None = field(default=None, init=False)

    async def ready(self) -> None:
        """Return once the actor answers.

        Raises:
            Exception: it cannot be made, or has died for good.
        """
        while True:
            try:
                await self.actor.ready.remote()
            except ActorDiedError as error:  # its constructor failed, or nobody will start it again
                raise TrainingError(_told(error)) from error
            except RayError:
                await asyncio.sleep(0.1)  # it died once more meanwhile
            else:
                return

    async def do(self, job: Job) -> list[bytes]:
        """Play; trajectories in MessagePack.

        Raises:
            WorkerLost: the actor or its node died, or was silent for too long and was killed.
            Exception: what the actor's method raised.
        """
        ref = self.actor.play.remote(job.unit.episodes, job.orders)
        self._playing += 1
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watched())
        try:
            played: list[bytes] = await ref
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayError as error:
            raise WorkerLost(_told(error)) from error
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        finally:
            self._playing -= 1
        return played

    def kill(self) -> None:
        """End the actor for good."""
        if self._watch is not None:
            self._watch.cancel()
        with suppress(RayError, RuntimeError):  # Ray itself may be gone
            ray.kill(self.actor)

    async def _watched(self) -> None:
        """While episodes are with the actor, ask for a sign of life; kill an actor that gives none."""
        while self._playing:
            try:
                async with asyncio.timeout(self.silence_seconds):
                    await self.actor.ready.remote()
                await asyncio.sleep(min(10.0, self.silence_seconds / 4))
            except TimeoutError:
                ray.kill(self.actor, no_restart=False)
                return
            except RayError:
                return


def hire(recipe: Recipe, imports: Sequence[str] = ()) -> list[ActorWorker]:
    """Ask Ray for the workers of a run; they start in the background.

    Raises:
        ConfigError: no node has what the recipe asks for.
    """
    cluster = recipe.cluster
    place = cluster.workers
    check_room("cluster.workers", place)
    count = place.count or room(place)
    places = place.episodes or math.ceil(recipe.rollout.concurrency / count)
    device = "cuda" if place.gpus else "cpu"
    setup = Setup(device, places, max(1, recipe.model.threads), tuple(imports), tuple(map(os.path.abspath, sys.path)))
    options = {
        **options_of(place),
        "max_restarts": -1,
        "max_task_retries": 0,  # the dispatcher knows better what was already done
        "max_concurrency": places + 8,
        "scheduling_strategy": "SPREAD",
    }
    made = ray.remote(Worker)
    return [
        ActorWorker(made.options(**options).remote(setup), places, cluster.start_seconds, cluster.silence_seconds)
        for _ in range(count)
    ]


def _told(error: RayError) -> str:
    """The line of Ray's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "creation task" in str(error) else lines[0]
