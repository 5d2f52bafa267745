"""How much memory a run takes at most."""

from __future__ import annotations

import resource
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class PeakMemory:
    """Samples the resident memory of this process and its children in a thread, while the block runs."""

    def __init__(self, seconds: float = 0.5, *, known: int = 0) -> None:
        """`known`: bytes that are known to have been taken earlier."""
        self.seconds = seconds
        self._peak = known
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def peak(self) -> int:
        """Most bytes so far: of all processes at once as sampled (pages that they share count for each), or of one of
        them as the system knows it, which misses nothing between two samples."""
        self._peak = max(self._peak, _tree_rss(), peak_rss())
        return self._peak

    def _sample(self) -> None:
        while not self._stop.wait(self.seconds):
            self.peak()


def peak_rss() -> int:
    """Most bytes that this process, or the largest of its children that have ended, ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(_high_water() or own, children) * unit


def _high_water() -> int:
    """KiB; 0 where the system does not tell. Unlike `ru_maxrss` it does not count what this process's parent held."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
    return 0


def _tree_rss() -> int:
    import psutil

    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total
