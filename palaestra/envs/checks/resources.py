"""What `close` gives back: processes, threads, files, sockets, tasks, temporary files, and what a process has once."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palaestra.envs.checks.probe import Probe, Skipped, require
from palaestra.envs.checks.surroundings import Surroundings, temporary_files
from palaestra.envs.deadline import Timed
from palaestra.envs.episode import play
from palaestra.envs.isolation.proc import PROC, children, descendants

SEES_PROCESSES = (PROC / "self" / "fd").is_dir()
"""Whether this system tells what processes hold."""
_WARM_UP = 2
"""Cycles before counting: imports, caches, pools and servers shared by all instances are made once."""
_CYCLES = 4
_STEPS = 3
_SETTLING = 3.0
"""Seconds that what was closed has to be gone."""
_PER_PROCESS = "every instance of the process has the same; leave it alone, or set it back in close"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process and its descendants hold."""

    processes: dict[int, str]
    """Descendants: process id → name."""
    threads: dict[int, int]
    """Process id → how many."""
    files: dict[int, Counter[str]]
    """Process id → open descriptors by what they lead to."""
    tasks: set[asyncio.Task[Any]]
    """Of the running loop, that are not done."""
    temporary: set[str]
    """Names of temporary files and folders."""

    def beyond(self, before: Resources) -> dict[str, list[str]]:
        """What there is more than before, by kind. Processes that are new count as such, not by what they hold."""
        old = set(before.files)
        files = [name for pid in old & set(self.files) for name in (self.files[pid] - before.files[pid]).elements()]
        known = old & set(self.threads)
        return {
            "processes": [name for pid, name in self.processes.items() if pid not in before.processes],
            "threads": ["thread"] * max(0, sum(self.threads[pid] - before.threads[pid] for pid in known)),
            "files": files,
            "asyncio tasks": [_named(task) for task in self.tasks - before.tasks],
            "temporary files": sorted(self.temporary - before.temporary),
        }


async def releasing(probe: Probe) -> None:
    """Opening, playing and closing, over and over, leaves nothing behind.

    The closed instances are kept until the count, so that it is `close` that has to release.
    """
    if not SEES_PROCESSES:
        raise Skipped("it needs /proc")
    with temporary_files() as folder:
        kept = [await _cycle(probe) for _ in range(_WARM_UP)]
        gc.collect()  # what earlier instances hold, freed later, would make up for what these leave
        before = held(folder)
        kept += [await _cycle(probe) for _ in range(_CYCLES)]
        await _settle(before, folder)
        beyond = held(folder).beyond(before)
    for kind, left in beyond.items():
        named = ", ".join(f"{n} × {what}" if n > 1 else what for what, n in Counter(left).most_common(3))
        require(
            len(left) < _CYCLES,
            f"after {_CYCLES} instances were closed, {len(left)} {kind} are left ({named}); release them in close",
        )
    del kept
    if not probe.elsewhere:
        await _leave_surroundings(probe)


async def _leave_surroundings(probe: Probe) -> None:
    """An instance leaves the working directory and the environment variables as they were.

    What importing its module has set, once, is no affair of an instance: only what is set again counts.
    """
    now = Surroundings.now()
    require(
        now.folder == probe.surroundings.folder, f"it changes the working directory to {now.folder}; {_PER_PROCESS}"
    )
    if not now.other(probe.surroundings):
        return
    probe.surroundings.restore()
    try:
        with suppress(Exception):  # it may need what its import has set
            await _cycle(probe)
        changed = Surroundings.now().other(probe.surroundings)
    finally:
        now.restore()
    require(not changed, f"it changes the environment variables {', '.join(changed[:3])}; {_PER_PROCESS}")


async def _cycle(probe: Probe) -> Timed:
    env = await probe.made()
    try:
        await env.start()
        await play(env, probe.seeds[0], probe.actions, _STEPS)
    finally:
        await env.close()
    return env


async def _settle(before: Resources, folder: Path) -> None:
    """Wait until little is left, or so long that it will stay."""
    until = time.monotonic() + _SETTLING
    while time.monotonic() < until and any(len(left) >= _CYCLES for left in held(folder).beyond(before).values()):
        await asyncio.sleep(0.05)


def held(folder: Path) -> Resources:
    """What this process and its descendants hold now, with the temporary files in `folder`."""
    me, *others = family(os.getpid())
    processes = _names(others)
    pids = [me, *processes]
    return Resources(
        processes,
        {pid: _threads(pid) for pid in pids},
        {pid: _files(pid) for pid in pids},
        asyncio.all_tasks(),
        set(os.listdir(folder)),
    )


def _named(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def family(root: int) -> list[int]:
    """A process and its descendants; none where nothing can be told."""
    return [root, *descendants(root, children())] if SEES_PROCESSES else []


def _names(pids: list[int]) -> dict[int, str]:
    """By id, of those that have not ended; a zombie holds nothing, and its parent may be the one who adopts orphans."""
    found = {}
    for pid in pids:
        with suppress(OSError, IndexError):
            head, _, rest = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")
            if rest.split()[0] != "Z":
                found[pid] = head.partition("(")[2]
    return found


def _threads(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(PROC / str(pid) / "task"))
    return 0


def _files(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    folder = PROC / str(pid) / "fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):  # the descriptor of the listing itself, or one closed meanwhile
                target = os.readlink(folder / name)
                kind, colon, _ = target.partition(":")
                found[kind if colon and not target.startswith("/") else target] += 1
    return found
