"""The leash of a vLLM server: a pipe as its standard input, whose other end only the process that started it has.

However that process ends, the kernel closes its end, and the server goes with all that it started.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress


def wear() -> None:
    """In the server, which leads a process group of its own: end the group once the leash is let go."""
    threading.Thread(target=_wait, name="leash", daemon=True).start()


def _wait() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os.killpg(0, signal.SIGKILL)
