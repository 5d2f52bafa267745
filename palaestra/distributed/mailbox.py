"""Between the process that a person looks at and the learner on another node: rows of metrics there, a wish to stop
back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

PAUSE_SECONDS = 0.2
"""Between two exchanges."""

Row = Mapping[str, Any]


class Mailbox:
    """The actor between them; it needs no room."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._stop = False

    def post(self, rows: list[Row]) -> bool:
        """Leave rows; whether training is to stop."""
        self._rows += rows
        return self._stop

    def take(self) -> list[Row]:
        """The rows since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def stop(self) -> None:
        """Ask for an end."""
        self._stop = True


class Sender:
    """The learner's side: a `Progress` that never waits for the network."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._rows: list[Row] = []
        self._over = threading.Event()

    def __call__(self, row: Row) -> None:
        """Send a row with the next exchange."""
        self._rows.append(dict(row))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Exchange inside the block; who asks for an end is heard as Ctrl-C is."""
        thread = threading.Thread(target=self._exchange, name="mailbox", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _exchange(self) -> None:
        stopping = False
        over = False
        while not over:
            over = self._over.wait(PAUSE_SECONDS)
            rows, self._rows = self._rows, []
            try:
                stop = ray.get(self._mailbox.post.remote(rows))
            except RayError:  # nobody looks any more; Ray ends this process with that one
                return
            if stop and not stopping:
                stopping = True
                os.kill(os.getpid(), signal.SIGINT)
