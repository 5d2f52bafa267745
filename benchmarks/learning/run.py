"""Run the learning study, or part of it. Finished runs are skipped, a stopped one goes on where it was.

    python -m benchmarks.learning.run                                   everything, two runs at a time
    python -m benchmarks.learning.run --list                            what there is to do
    python -m benchmarks.learning.run --settings grpo epo --seeds 2     part of it
    python -m benchmarks.learning.run --environments household --workers 1

Every run is `palaestra train` in a process of its own with one thread, below `runs/learning`; what is kept of it is one
JSON file below `benchmarks/learning/data`. Ctrl-C leaves checkpoints; the same command goes on. Afterwards
`python -m benchmarks.learning.report` writes tables and pictures.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.learning.record import write_record
from benchmarks.learning.study import STUDY, Job, finished, jobs, load_study
from palaestra.errors import PalaestraError

RUNS = Path("runs/learning")
BASE = RUNS / "base" / "goto"
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
"""How long a stopped run may take for its checkpoint."""


def main(arguments: list[str] | None = None) -> int:
    """Run what is not finished; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", nargs="+", metavar="NAME", help="of study.yaml (default: all)")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="of study.yaml (default: all)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of each setting (default: study.yaml's)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="runs at the same time (default: 2)")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="lower the runs' priority by N")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"run directories (default: {RUNS})")
    parser.add_argument("--study", type=Path, default=STUDY, metavar="FILE", help="another study than study.yaml")
    parser.add_argument("--list", action="store_true", help="say what is finished and what is not, and stop")
    args = parser.parse_args(arguments)
    try:
        every = jobs(load_study(args.study), args.environments, args.settings, args.seeds)
        left = [job for job in every if not finished(job)]
        if args.list:
            print("\n".join(f"{'to do' if job in left else 'done ':6} {job.name}" for job in every))
            return 0
        if any(_wants(job, BASE) for job in left) and not (BASE / "model.safetensors").exists():
            from benchmarks.learning.warm_start import make_base

            make_base(BASE)
        return _Runner(left, args.runs, max(1, args.workers), args.nice, len(every)).run()
    except PalaestraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _wants(job: Job, model: Path) -> bool:
    return bool(yaml.safe_load(job.recipe.read_text("utf-8"))["model"]["reference"] == str(model))


@dataclass
class _Running:
    """A run at work."""

    job: Job
    directory: Path
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    bar: TaskID
    fresh: bool
    """It was not begun before, so its CPU time is that of the whole run."""
    cpu_seconds: float = 0.0
    """So far; other work on the machine adds to the time on the clock, but not to this."""


class _Runner:
    """Keeps `workers` runs at work until none is left."""

    def __init__(self, left: list[Job], runs: Path, workers: int, nice: int, total: int) -> None:
        self.queue, self.runs, self.workers, self.nice = deque(left), runs, workers, nice
        self.total, self.console = total, Console()
        self.active: list[_Running] = []
        self.failures = 0
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console)

    def run(self) -> int:
        """Run all; 0 if all went well, 1 if one failed, 130 after Ctrl-C."""
        done = self.total - len(self.queue)
        with self.progress, _interruptible():
            self.whole = self.progress.add_task("study", total=self.total, completed=done)
            try:
                while self.queue or self.active:
                    self._fill()
                    self._look()
                    time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                self._stop()
                self.console.print("stopped; the same command goes on")
                return 130
        if self.failures:
            self.console.print(f"{self.failures} of the runs failed; the same command tries them again")
        return 1 if self.failures else 0

    def _fill(self) -> None:
        while self.queue and len(self.active) < self.workers:
            self.active.append(self._start(self.queue.popleft()))

    def _start(self, job: Job) -> _Running:
        directory = job.directory(self.runs)
        fresh = not directory.exists()
        directory.parent.mkdir(parents=True, exist_ok=True)
        log = directory.with_suffix(".log").open("wb")
        command = [sys.executable, "-m", "palaestra", "train", str(job.recipe), *job.overrides]
        command += [f"seed={job.seed}", "--out", str(directory), "--resume"]
        # A session of its own: Ctrl-C reaches the run by us, once, and not also from the terminal.
        process = subprocess.Popen(
            ["nice", "-n", str(self.nice), *command] if self.nice else command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,
        )
        total = yaml.safe_load(job.recipe.read_text("utf-8"))["budget"]["iterations"]
        return _Running(job, directory, process, log, self.progress.add_task(job.name, total=total), fresh)

    def _look(self) -> None:
        """Move the bars, and take down what has ended."""
        for running in list(self.active):
            self.progress.update(running.bar, completed=_iterations(running.directory))
            running.cpu_seconds = _cpu_seconds(running.process.pid) or running.cpu_seconds
            if running.process.poll() is not None:
                self._end(running)

    def _end(self, running: _Running) -> None:
        self.active.remove(running)
        running.log.close()
        self.progress.remove_task(running.bar)
        try:
            if running.process.returncode:
                raise PalaestraError(_last_line(running.directory.with_suffix(".log")))
            self._tell(
                running, write_record(running.job, running.directory, running.cpu_seconds if running.fresh else None)
            )
            self.progress.advance(self.whole)
        except PalaestraError as error:
            self.failures += 1
            told = f"{running.job.name} failed: {error} (see {running.directory.with_suffix('.log')})"
            self.console.print(told, highlight=False, soft_wrap=True)

    def _tell(self, running: _Running, record: dict[str, Any]) -> None:
        rates = f"{100 * record['base']['value']:.1f} % → {100 * record['test']['value']:.1f} %"
        seconds = f"{record['train_seconds']:.0f} s of training, {record['wall_seconds']:.0f} s in all"
        self.console.print(f"{running.job.name}: {rates}, {seconds}", highlight=False)

    def _stop(self) -> None:
        """Ask every run for a checkpoint and wait; what does not end in time is killed."""
        for running in self.active:
            running.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for running in self.active:
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.log.close()


def _iterations(directory: Path) -> int:
    """Rows of training in the metrics."""
    try:
        return (directory / "metrics.jsonl").read_bytes().count(b'"kind": "train"')
    except OSError:
        return 0


def _cpu_seconds(pid: int) -> float:
    """Of a process; 0 where it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the study as Ctrl-C does, or its runs would go on without it.

    A shell that puts the study into the background has Ctrl-C ignored, and its runs would inherit that: they could then
    not be asked for a checkpoint.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
