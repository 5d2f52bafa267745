"""The seam between an isolated environment and where it runs."""

from __future__ import annotations

from typing import Protocol

from palaestra.envs.isolation.protocol import Call, Result
from palaestra.envs.registry import EnvSpec
from palaestra.errors import EnvError


class CannotFork(EnvError):
    """The channel cannot copy what runs at its far side; the message says why. Replay is always left."""


class Channel(Protocol):
    """A connection to one environment elsewhere. Calls come one at a time; nobody calls after `close` or `kill`."""

    async def call(self, call: Call) -> Result:
        """Have it done. Deadlines are the caller's, who cancels this and then calls `kill`.

        Raises:
            WorkerError: the far side is gone; the message says how it ended.
        """

    async def fork(self, n: int) -> list[Channel]:
        """`n` channels to copies of the environment as it is now.

        Raises:
            CannotFork: there is no right way here. Nothing has changed.
            WorkerError: the far side is gone.
        """

    async def close(self) -> None:
        """Let the far side go, in order: its environment has been closed by a call, or is closed now. Never raises."""

    def kill(self) -> None:
        """End the far side at once, whatever it is doing, with everything that it started. Never raises."""


async def open_channel(spec: EnvSpec) -> Channel:
    """A channel to a new place for `spec`, by its placement. The environment itself is yet to be made (`Make`).

    Raises:
        WorkerError: the place cannot be had.
        EnvError: the placement makes no sense.
        MissingExtraError: it needs an extra that is not installed.
    """
    kind = spec.placement.kind
    if kind == "thread":
        from palaestra.envs.isolation.threads import ThreadChannel

        return ThreadChannel()
    if kind == "process":
        from palaestra.envs.isolation.processes import open_process

        return await open_process(spec)
    if kind == "interpreter":
        from palaestra.envs.isolation.interpreters import open_interpreter

        return await open_interpreter(spec)
    if kind == "remote":
        from palaestra.envs.isolation.remote import open_remote

        return await open_remote(spec)
    raise EnvError(f"{spec.id!r} runs inline; there is no channel to it")
