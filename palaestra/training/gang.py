"""The ranks of one run: processes that `torchrun` started with the same command line.

Every rank runs the same trainer with the same state. An iteration's groups are shared out, each rank plays its own with
a whole copy of the weights, and all get all episodes; so every rank has the whole batch, from which statistics,
advantages and denominators follow as in one process, and a rank's part of the update is its share of the rows. Only the
first rank writes the run directory (of checkpoints with spread weights each writes its part), evaluates and reports.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from palaestra.agents.agent import Agent
from palaestra.agents.episode import Episode
from palaestra.agents.planner import Planner
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import DataError, TrainingError
from palaestra.evaluation.evaluate import Progress
from palaestra.evaluation.result import EvalResult
from palaestra.training.player import InProcessPlayer, Player
from palaestra.training.ranks import exchanged, on_first, rank, ranks
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import decoded, encoded

T = TypeVar("T")
LOST = re.compile("connection|gloo|nccl|peer|broken pipe|timed out", re.IGNORECASE)
"""In what torch says where another rank has gone."""
PATIENCE = timedelta(hours=6)
"""How long ranks wait for one that plays or evaluates. One that dies is noticed at once."""


def expected() -> int:
    """How many ranks torchrun says there are; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Meet the other ranks, where there are any; `device` is the recipe's.

    Raises:
        TrainingError: another rank was lost, then or later.
    """
    if expected() == 1 or dist.is_initialized():
        yield
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    except (RuntimeError, dist.DistError) as error:  # torch says it in either
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not LOST.search(str(error)):
            raise
        raise TrainingError(
            f"rank {rank()} of {ranks()} goes no further, as another was lost or failed ({told}); see what that one "
            "said, then go on from the last checkpoint with --resume, on any number of ranks"
        ) from error
    finally:
        dist.destroy_process_group()


def shared_out(player: Player) -> Player:
    """The player of a run: the same where there is one rank."""
    return player if ranks() == 1 else GangPlayer(player)


class GangPlayer:
    """Each rank plays its share of the groups, and gets all that were played.

    Where the first rank's player is not in its own process (on a Ray cluster, say), that one plays everything.
    """

    def __init__(self, inner: Player) -> None:
        self.inner = inner
        self.alone = on_first(lambda: type(inner) is not InProcessPlayer)

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        """As `Player.play`.

        Raises:
            TrainingError: another rank cannot play.
        """
        parts = [[*range(len(episodes))]] if self.alone else by_group(episodes, ranks())
        mine = parts[rank()] if rank() < len(parts) else []
        said: tuple[str, Any] = "played", []
        failure: BaseException | None = None
        try:
            own = await self.inner.play([episodes[k] for k in mine], version, planner) if mine else []
            said = "played", [encoded(trajectory) for trajectory in own]
        except BaseException as error:
            said, failure = _reason(error), error
        heard = exchanged(said)
        if failure is not None:
            raise failure
        found: dict[int, Trajectory] = {}
        for number, (kind, value) in enumerate(heard):
            if kind != "played":
                raise _failure(kind, f"rank {number}: {value}")
            found.update(zip(parts[number] if number < len(parts) else [], map(decoded, value), strict=True))
        return [found[k] for k in range(len(episodes))]

    async def evaluate(
        self,
        suite: TaskSuite,
        episodes: int,
        *,
        name: str,
        version: int = 0,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> EvalResult:
        """As `Player.evaluate`, by the first rank."""
        return await by_first(
            lambda: self.inner.evaluate(suite, episodes, name=name, version=version, store=store, progress=progress)
        )

    async def evaluate_agent(
        self,
        agent: Agent,
        suite: TaskSuite,
        episodes: int,
        *,
        name: str,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> EvalResult:
        """As `Player.evaluate_agent`, by the first rank."""
        return await by_first(
            lambda: self.inner.evaluate_agent(agent, suite, episodes, name=name, store=store, progress=progress)
        )

    async def close(self) -> None:
        """As `Player.close`."""
        await self.inner.close()


def by_group(episodes: Sequence[Episode], count: int) -> list[list[int]]:
    """Positions of the episodes that each of `count` ranks plays: whole groups, in turns."""
    names = {name: number for number, name in enumerate(dict.fromkeys(e.group or e.id for e in episodes))}
    parts: list[list[int]] = [[] for _ in range(count)]
    for position, episode in enumerate(episodes):
        parts[names[episode.group or episode.id] % count].append(position)
    return parts


async def by_first(work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives on the first rank, which alone does it.

    Raises:
        DataError: as the first rank's.
        TrainingError: the first rank failed otherwise.
    """
    if rank():
        told: list[Any] = exchanged(None)
        kind, value = told[0]
        if kind != "played":
            raise _failure(kind, value)
        done: T = value
        return done
    try:
        result = await work()
    except BaseException as error:
        exchanged(_reason(error))
        raise
    exchanged(("played", result))
    return result


def _reason(error: BaseException) -> tuple[str, str]:
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "interrupted", ""
    return ("data" if isinstance(error, DataError) else "failed"), str(error)


def _failure(kind: str, told: str) -> BaseException:
    if kind == "interrupted":
        return asyncio.CancelledError()
    return DataError(told) if kind == "data" else TrainingError(told)
