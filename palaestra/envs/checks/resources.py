"""What `close` gives back: processes, threads, files and sockets."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from palaestra.envs.checks.probe import Probe, Skipped, require
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


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process and its descendants hold."""

    processes: dict[int, str]
    """Descendants: process id → name."""
    threads: dict[int, int]
    """Process id → how many."""
    files: dict[int, Counter[str]]
    """Process id → open descriptors by what they lead to."""

    def beyond(self, before: Resources) -> dict[str, list[str]]:
        """What there is more than before, by kind. Processes that are new count as such, not by what they hold."""
        old = set(before.files)
        files = [name for pid in old & set(self.files) for name in (self.files[pid] - before.files[pid]).elements()]
        known = old & set(self.threads)
        return {
            "processes": [name for pid, name in self.processes.items() if pid not in before.processes],
            "threads": ["thread"] * max(0, sum(self.threads[pid] - before.threads[pid] for pid in known)),
            "files": files,
        }


async def releasing(probe: Probe) -> None:
    """Opening, playing and closing, over and over, leaves no process, thread or file behind.

    The closed instances are kept until the count, so that it is `close` that has to release.
    """
    if not SEES_PROCESSES:
        raise Skipped("it needs /proc")
    kept = [await _cycle(probe) for _ in range(_WARM_UP)]
    before = held()
    kept += [await _cycle(probe) for _ in range(_CYCLES)]
    await _settle(before)
    for kind, left in held().beyond(before).items():
        named = ", ".join(f"{n} × {what}" if n > 1 else what for what, n in Counter(left).most_common(3))
        require(
            len(left) < _CYCLES,
            f"after {_CYCLES} instances were closed, {len(left)} {kind} are left ({named}); release them in close",
        )
    del kept


async def _cycle(probe: Probe) -> Timed:
    env = await probe.made()
    try:
        await env.start()
        await play(env, probe.seeds[0], probe.actions, _STEPS)
    finally:
        await env.close()
    return env


async def _settle(before: Resources) -> None:
    """Wait until little is left, or so long that it will stay."""
    until = time.monotonic() + _SETTLING
    while time.monotonic() < until and any(len(left) >= _CYCLES for left in held().beyond(before).values()):
        await asyncio.sleep(0.05)


def held() -> Resources:
    """What this process and its descendants hold now."""
    me, *others = family(os.getpid())
    processes = _names(others)
    pids = [me, *processes]
    return Resources(processes, {pid: _threads(pid) for pid in pids}, {pid: _files(pid) for pid in pids})


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
