"""Groups lost, or learned from twice, over a hundred random kills; and a synchronous run that was killed, against one
that was not.

Asynchronous runs are disturbed while they train: the learner dies in the middle of an update or between two, the disk
is full when an episode, a row of metrics or a checkpoint is written, the engine dies while it samples, environments
crash or hang. A dead learner or a full disk ends the process, here the call, and the run is resumed from its directory.
At the end, the run must have learned from every planned group once, from each of its episodes once, in as many updates
as were planned. Every other run may learn from a group that lacks a few episodes (`trainer.quorum`); of those every
group must have been learned from, and no episode twice. In the others no token may be older than `trainer.staleness`.
`kills` counts deaths of learner and engine and full disks; crashes and hangs of environments come on top.

    python benchmarks/fault_run.py [--kills 100]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _chores import WEATHER, Chores, chores_recipe, prepare
from _harness import conclude

from palaestra.config import Recipe
from palaestra.errors import PalaestraError
from palaestra.files import GrowingFile
from palaestra.training import checkpoint as checkpoints
from palaestra.training.asynchronous import resident
from palaestra.training.checkpoint import load_latest
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics
from palaestra.training.run import train
from palaestra.trajectories.store import read_trajectories


class Killed(BaseException):
    """Stands for a death of the process."""


class Faults:
    """Disturbs whatever is trained inside of `at_work`, each kind with a probability per occasion."""

    def __init__(self, seed: int, rate: float = 1.0) -> None:
        self.draw, self.rate = random.Random(seed), rate
        self.kills: Counter[str] = Counter()
        self.engines: list[Any] = []

    def strikes(self, kind: str, probability: float) -> bool:
        """Whether it happens now."""
        if self.draw.random() >= probability * self.rate:
            return False
        self.kills[kind] += 1
        return True

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Disturb."""
        update, append, step = Learner.update, GrowingFile.append, Chores.step
        write, engine = checkpoints._write_files, resident.TorchEngine

        def dying_update(learner: Learner, *arguments: Any) -> Any:
            if self.strikes("learner, before an update", 0.06):
                raise Killed
            done = update(learner, *arguments)
            if self.strikes("learner, after an update", 0.06):
                raise Killed
            return done

        def full_append(file: GrowingFile, data: bytes) -> None:
            if self.strikes("disk", 0.004):
                raise PalaestraError(f"cannot write {file.path}: No space left on device")
            append(file, data)

        def full_write(*arguments: Any) -> None:
            if self.strikes("disk, at a checkpoint", 0.05):
                raise OSError(28, "No space left on device")
            write(*arguments)

        def kept_engine(*arguments: Any, **more: Any) -> Any:
            self.engines.append(engine(*arguments, **more))
            return self.engines[-1]

        async def disturbing_step(env: Chores, action: str) -> Any:
            if self.engines and self.strikes("engine", 0.01):
                await self.engines[-1].close()
            return await step(env, action)

        with (
            patch.object(Learner, "update", dying_update),
            patch.object(GrowingFile, "append", full_append),
            patch.object(checkpoints, "_write_files", full_write),
            patch.object(resident, "TorchEngine", kept_engine),
            patch.object(Chores, "step", disturbing_step),
        ):
            yield

    def tell(self, row: Mapping[str, Any]) -> None:
        """Killed between two iterations."""
        if row["kind"] == "train" and self.strikes("learner, between updates", 0.06):
            raise Killed


def disturbed(recipe: Recipe, faults: Faults, sessions: int = 60) -> int:
    """Train to the end, resuming after every death; how many sessions that took."""
    for session in range(sessions):
        try:
            with faults.at_work(), contextlib.redirect_stderr(io.StringIO()):
                train(recipe, resume=session > 0, progress=faults.tell)
            return session + 1
        except (Killed, PalaestraError) as error:
            if isinstance(error, PalaestraError) and "cannot write" not in str(error):
                raise
    raise RuntimeError(f"the run did not come to its end in {sessions} sessions: {dict(faults.kills)}")


def amiss(recipe: Recipe) -> tuple[int, int]:
    """Groups that were lost, and episodes that were learned from twice, in a finished run.

    With a quorum below 1 a group counts as lost where fewer of its episodes were learned from.
    """
    count, size = recipe.rollout.groups, recipe.rollout.group_size
    learned = Counter(t.id for t in read_trajectories(recipe.directory / "trajectories" / "train.ptj"))
    usable = {t.group for t in read_trajectories(recipe.directory / "trajectories" / "train.ptj") if t.status == "ok"}
    lost = 0
    for iteration in range(recipe.budget.iterations):
        for group in range(count):
            name = f"{iteration}/{group}"
            there = sum(f"{name}/{member}" in learned for member in range(size))
            lost += name not in usable or there < math.ceil(recipe.trainer.quorum * size)
    updates = [row["iteration"] for row in read_metrics(recipe.directory / "metrics.jsonl") if row["kind"] == "train"]
    if updates != list(range(recipe.budget.iterations)):
        raise RuntimeError(f"updates {updates}")
    return lost, sum(number - 1 for number in learned.values())


def too_old(recipe: Recipe) -> int:
    """Updates that learned from tokens older than the bound, which holds where no episode is left to come later."""
    if recipe.trainer.quorum < 1:
        return 0
    rows = read_metrics(recipe.directory / "metrics.jsonl")
    return sum(row["staleness_max"] > recipe.trainer.staleness for row in rows if row["kind"] == "train")


FAULTY = [
    *("trainer.mode=async", "trainer.staleness=2", "trainer.restarts=8"),
    *("budget.iterations=10", "checkpoint.every=2", "checkpoint.keep=2"),
    *("rollout.retries=3", "rollout.step_seconds=0.2"),
]
QUORA = (1.0, 0.75)
"""Of the runs in turns; 0.75: three of a group's four."""


def asynchronous(folder: Path, kills: int) -> dict[str, Any]:
    """Runs until there were so many kills."""
    total: Counter[str] = Counter()
    lost = twice = old = runs = sessions = 0
    while total.total() < kills:
        quorum = QUORA[runs % len(QUORA)]
        recipe = chores_recipe(folder, f"faulty-{runs}", *FAULTY, f"seed={runs}", f"trainer.quorum={quorum}")
        faults = Faults(runs)
        WEATHER.draw.seed(runs)
        WEATHER.crashes, WEATHER.hangs = 0.01, 0.002
        sessions += disturbed(recipe, faults)
        more = amiss(recipe)
        lost, twice, old, runs = lost + more[0], twice + more[1], old + too_old(recipe), runs + 1
        total += faults.kills
    WEATHER.crashes = WEATHER.hangs = 0.0
    environments = {"environments crashed": WEATHER.crashed, "environments hung": WEATHER.hung}
    return {
        "lost": lost,
        "twice": twice,
        "old": old,
        "runs": runs,
        "sessions": sessions,
        "kills": dict(total) | environments,
    }


def synchronous(folder: Path) -> bool:
    """Whether a killed and resumed synchronous run has every weight and every metric of an undisturbed one."""
    settings = ["budget.iterations=10", "checkpoint.every=3"]
    whole, broken = (chores_recipe(folder, name, *settings) for name in ("whole", "broken"))
    with contextlib.redirect_stderr(io.StringIO()):
        train(whole)
    faults = Faults(1, rate=3.0)
    disturbed(broken, faults)
    return bool(faults.kills) and outcome(whole) == outcome(broken)


def outcome(recipe: Recipe) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Weights, optimiser and metrics without times."""
    latest = load_latest(recipe.directory / "checkpoints")
    assert latest is not None
    tensors = {**latest.model, **{f"optimiser.{name}": each for name, each in latest.optimiser.items()}}
    times = ("elapsed", "rollout_seconds", "update_seconds", "rss_bytes")
    rows = [{k: v for k, v in r.items() if k not in times} for r in read_metrics(recipe.directory / "metrics.jsonl")]
    return {name: each.numpy().tobytes() for name, each in tensors.items()}, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    kills, began = parser.parse_args().kills, time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name))
        found = asynchronous(folder, kills)
        exact = synchronous(folder)
    failures = found["lost"] + found["twice"] + found["old"] + (not exact)
    passed = conclude(
        "fault_run",
        float(failures),
        0.0,
        at_most=True,
        groups_lost=found["lost"],
        trained_twice=found["twice"],
        updates_beyond_staleness=found["old"],
        sync_resume_bit_exact=exact,
        runs=found["runs"],
        sessions=found["sessions"],
        kills=found["kills"],
        seconds=time.perf_counter() - began,
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
