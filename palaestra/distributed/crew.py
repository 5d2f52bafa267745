"""The crew: the workers of a run as Ray's actors, placed, watched and replaced."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from palaestra.config import Recipe
from palaestra.distributed.cluster import check_room, free_room, options_of
from palaestra.distributed.dispatch import WorkerLost
from palaestra.distributed.engine import EngineHost
from palaestra.distributed.policy import Policy
from palaestra.distributed.units import Unit
from palaestra.distributed.watch import Watch
from palaestra.distributed.worker import Orders, Setup, Worker
from palaestra.errors import TrainingError

_LIVES: dict[str, Any] = {
    "max_restarts": -1,
    "max_task_retries": 0,  # the dispatcher knows better what was already done
    "scheduling_strategy": "SPREAD",
}


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
    silence_seconds: float
    _newest: Policy | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(self.actor, self.silence_seconds)

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
        ref = self.actor.play.remote(job.unit.episodes, _renewed(job.orders, self._newest))
        try:
            played: list[bytes] = await self._watch.answer(ref)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayError as error:
            raise WorkerLost(_told(error)) from error
        return played

    def update(self, policy: Policy) -> None:
        """Send weights to whatever plays there, and go on; what it is given to play from now on has them."""
        self._newest = policy
        with suppress(RayError):
            self.actor.update.remote(policy)

    def kill(self) -> None:
        """End the actor for good."""
        self._watch.close()
        with suppress(RayError, RuntimeError):  # Ray itself may be gone
            ray.kill(self.actor)


def crew_size(recipe: Recipe) -> int:
    """How many workers a run has: as many as it asks for, or as there is room for now beside its engines.

    Raises:
        ConfigError: no node has what the recipe asks for.
    """
    place, engines = recipe.cluster.workers, recipe.cluster.engines
    check_room("cluster.workers", place)
    return place.count or max(1, free_room(place, reserved=[engines] * engines.count))


def hire(recipe: Recipe, count: int, imports: Sequence[str] = (), engines: Sequence[Any] = ()) -> list[ActorWorker]:
    """Ask Ray for the workers of a run; they start in the background.

    Args:
        recipe: says where, and what each plays at once.
        count: of the workers.
        imports: modules or files that register environments.
        engines: hosts that the workers ask, instead of an engine of their own.
    """
    cluster, place = recipe.cluster, recipe.cluster.workers
    places = place.episodes or math.ceil(recipe.rollout.concurrency / count)
    device, threads = "cuda" if place.gpus else "cpu", max(1, recipe.model.threads)
    path = tuple(map(os.path.abspath, sys.path))
    made, options = ray.remote(Worker), {**options_of(place), **_LIVES, "max_concurrency": places + 8}
    return [
        ActorWorker(
            made.options(**options).remote(
                Setup(
                    device=device,
                    slots=places,
                    threads=threads,
                    compiled=recipe.engine.compile,
                    imports=tuple(imports),
                    engines=tuple(engines),
                    number=number,
                    path=path,
                    silence_seconds=cluster.silence_seconds,
                )
            ),
            places,
            cluster.silence_seconds,
        )
        for number in range(count)
    ]


def hire_engines(recipe: Recipe) -> list[Any]:
    """Ask Ray for the engines of a run, if they are not the workers'.

    Raises:
        ConfigError: no node has what the recipe asks for.
    """
    place = recipe.cluster.engines
    if not place.count:
        return []
    check_room("cluster.engines", place)
    slots = math.ceil(recipe.rollout.concurrency / place.count)
    options = {**options_of(place), **_LIVES, "max_concurrency": 2 * recipe.rollout.concurrency + 8}
    made, device = ray.remote(EngineHost), "cuda" if place.gpus else "cpu"
    what = device, slots, max(1, recipe.model.threads), recipe.engine.compile
    return [made.options(**options).remote(*what) for _ in range(place.count)]


def dismiss(engines: Sequence[Any]) -> None:
    """End them."""
    for engine in engines:
        with suppress(RayError, RuntimeError):
            ray.kill(engine)


def _renewed(orders: Orders, newest: Policy | None) -> Orders:
    """With the newest weights: a worker that was started again meanwhile knows none, and would take those that were the
    newest when the job was made."""
    who = orders.who
    if newest is None or not isinstance(who, Policy) or who.serial >= newest.serial:
        return orders
    return replace(orders, who=replace(who, serial=newest.serial, version=newest.version, refs=newest.refs))


def _told(error: RayError) -> str:
    """The line of Ray's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "creation task" in str(error) else lines[0]
