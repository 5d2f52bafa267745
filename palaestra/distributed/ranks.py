"""The learner on nodes of its own: each rank an actor that runs the same `train`, as under torchrun.

Rank 0 also hires the workers and writes the run directory. When a rank dies all begin again from the newest checkpoint,
as after any other kill.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from palaestra.config import Recipe
from palaestra.distributed.cluster import check_room, demand_of, options_of
from palaestra.distributed.mailbox import PAUSE_SECONDS, Mailbox, Sender
from palaestra.errors import PalaestraError, TrainingError
from palaestra.imports import import_module_or_file
from palaestra.training.player import InProcessPlayer
from palaestra.training.run import RunResult, train
from palaestra.training.trainer import Progress

TOGETHER_SECONDS = 20.0
"""How long the other ranks may take to find out that one was lost."""


class Interrupted(TrainingError):
    """Training was interrupted before there was anything to keep."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What every rank is asked to do."""

    recipe: Recipe
    resume: bool
    imports: tuple[str, ...]
    path: tuple[str, ...]
    """Where else modules are looked for."""
    folder: str
    """The working directory of the process that started the run, which paths are relative to."""


class Rank:
    """What runs in the actor. It has one thread, the main one, so that it is interrupted as any run is."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        sys.path.extend(entry for entry in errand.path if entry not in sys.path)
        with suppress(OSError):
            os.chdir(errand.folder)
        for name in errand.imports:
            import_module_or_file(name)

    def address(self) -> tuple[str, int]:
        """Where the ranks meet, if this is the first of them."""
        here = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        with socket.socket() as free:
            free.bind((here, 0))
            return here, int(free.getsockname()[1])

    def train(self, resume: bool, mailbox: Any, environment: dict[str, str]) -> RunResult:
        """Train; `environment` says which of how many this is, in torchrun's variables."""
        from palaestra.distributed.player import open_player

        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in all that it starts
        errand, sender = self.errand, Sender(mailbox)
        first = int(environment.get("RANK", "0")) == 0
        try:
            # An end reaches the other ranks through the first: each interrupted by itself would leave in another place.
            with sender.running() if first else nullcontext():
                return train(
                    errand.recipe,
                    resume=resume,
                    progress=sender if first else None,
                    open_player=partial(open_player, imports=errand.imports) if first else InProcessPlayer,
                )
        except KeyboardInterrupt:  # while the model was still being loaded; Ray has a meaning of its own for it
            raise Interrupted("interrupted before training began") from None
        except PalaestraError as error:  # some classes cannot be sent
            raise TrainingError(str(error)) from None


def train_on_ranks(errand: Errand, progress: Progress | None) -> RunResult:
    """Train with the learner placed as the recipe says; Ctrl-C is passed on, and waited for.

    Raises:
        ConfigError: no node has what a rank asks for.
        TrainingError: training cannot go on; or a rank was lost more often than `cluster.learner.restarts`.
    """
    place = errand.recipe.cluster.learner
    check_room("cluster.learner", place)
    lost = 0
    while True:
        try:
            return _attempt(errand, errand.resume or lost > 0, progress)
        except RayActorError as error:
            lost += 1
            if lost > place.restarts:
                told = str(error).strip().splitlines()[0]
                raise TrainingError(f"the learner was lost {lost} times: {told}; --resume goes on") from error


def _attempt(errand: Errand, resume: bool, progress: Progress | None) -> RunResult:
    cluster = errand.recipe.cluster
    place = cluster.learner
    group = placement_group([demand_of(place) or {"CPU": 0.001}] * place.ranks, strategy="PACK")
    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    ranks: list[Any] = []
    try:
        if not group.wait(cluster.start_seconds):
            raise TrainingError(f"{place.ranks} ranks found no place within {cluster.start_seconds:g} s")
        made = ray.remote(Rank)
        for number in range(place.ranks):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            ranks.append(made.options(**options_of(place), scheduling_strategy=strategy).remote(errand))
        running = [
            rank.train.remote(resume, mailbox, each) for rank, each in zip(ranks, _environments(ranks), strict=True)
        ]
        return _watched(running, mailbox, progress)
    finally:
        for actor in (*ranks, mailbox):
            with suppress(RayError):
                ray.kill(actor)
        remove_placement_group(group)


def _environments(ranks: Sequence[Any]) -> list[dict[str, str]]:
    """torchrun's variables for each; none where there is one rank. Ray shows each its own GPUs only."""
    if len(ranks) == 1:
        return [{}]
    host, port = ray.get(ranks[0].address.remote())
    shared = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(len(ranks))}
    return [{**shared, "RANK": str(n), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"} for n in range(len(ranks))]


def _watched(running: Sequence[Any], mailbox: Any, progress: Progress | None) -> RunResult:
    """The first rank's result; rows are told meanwhile."""
    try:
        try:
            while not _over(running):
                _tell(mailbox, progress)
        except KeyboardInterrupt:
            _stop(running, mailbox, progress)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, PalaestraError) else error from None
    _tell(mailbox, progress)
    result: RunResult = ray.get(running[0])
    return result


def _stop(running: Sequence[Any], mailbox: Any, progress: Progress | None) -> None:
    """Ask for an end, and wait for it.

    Raises:
        KeyboardInterrupt: the learner was lost on the way, which is no reason to begin again; or had not begun.
    """
    try:
        ray.get(mailbox.stop.remote())
        while not _over(running):
            _tell(mailbox, progress)
    except RayTaskError as error:
        if isinstance(error.cause, Interrupted):
            raise KeyboardInterrupt from None
        raise
    except RayError:
        raise KeyboardInterrupt from None


def _over(running: Sequence[Any]) -> bool:
    """Whether all are done.

    Raises:
        RayActorError: one was lost.
        RayTaskError: one failed, and none was lost.
    """
    done, left = ray.wait(list(running), num_returns=len(running), timeout=PAUSE_SECONDS)
    failures = list(filter(None, map(_failure, done)))
    if failures and left:  # when one is lost the others fail for that; which of them is told first is chance
        done, _ = ray.wait(list(running), num_returns=len(running), timeout=TOGETHER_SECONDS)
        failures = list(filter(None, map(_failure, done)))
    for error in sorted(failures, key=lambda each: not isinstance(each, RayActorError)):
        raise error
    return not left


def _failure(ref: Any) -> RayError | None:
    try:
        ray.get(ref)
    except RayError as error:
        return error
    return None


def _tell(mailbox: Any, progress: Progress | None) -> None:
    for row in ray.get(mailbox.take.remote()):
        if progress:
            progress(row)
