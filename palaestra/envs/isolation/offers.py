"""Places of a server, and the forked environments that wait there for their clients."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from palaestra.envs.core import Env
from palaestra.envs.ending import is_meant
from palaestra.envs.isolation.placement import Deadlines
from palaestra.errors import EnvError

Environment = Env[Any, Any]


@dataclass(slots=True)
class Places:
    """How many environments may exist at once."""

    most: int
    taken: int = 0

    @property
    def full(self) -> bool:
        """Whether there is none left."""
        return self.taken >= self.most

    def take(self, n: int = 1) -> None:
        """Take `n` of them.

        Raises:
            EnvError: there are not so many left.
        """
        if self.taken + n > self.most:
            raise EnvError(
                f"the server has no place for {n} more: {self.taken} of {self.most} sessions are taken; close some, "
                f"or raise its limit by palaestra serve --sessions"
            )
        self.taken += n

    def give_back(self) -> None:
        """Give one back."""
        self.taken -= 1


@dataclass(slots=True)
class Offers:
    """Forked environments, each under a key that opens it once. One that nobody fetches in time is closed.

    Each has a place already, which goes over to who claims it.
    """

    places: Places
    seconds: float
    """How long one waits."""
    _waiting: dict[str, tuple[Environment, asyncio.TimerHandle]] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def add(self, env: Environment) -> str:
        """Offer `env`, which has a place, and return its key."""
        key = secrets.token_urlsafe(32)
        timer = asyncio.get_running_loop().call_later(self.seconds, self._expire, key)
        self._waiting[key] = env, timer
        return key

    def hurry(self, keys: Iterable[str], seconds: float) -> None:
        """Let those of `keys` that still wait do so for `seconds` more, at most."""
        loop = asyncio.get_running_loop()
        for key in keys:
            env, timer = self._waiting.get(key, (None, None))
            if env is not None and timer is not None and timer.when() > loop.time() + seconds:
                timer.cancel()
                self._waiting[key] = env, loop.call_later(seconds, self._expire, key)

    def claim(self, key: str) -> Environment | None:
        """What waits under `key`, with its place; `None` if nothing does (any more)."""
        env, timer = self._waiting.pop(key, (None, None))
        if timer is not None:
            timer.cancel()
        return env

    async def close(self) -> None:
        """Close all that wait, and finish closing."""
        for key in list(self._waiting):
            self._expire(key)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _expire(self, key: str) -> None:
        if (env := self.claim(key)) is not None:
            task = asyncio.create_task(self._drop(env))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _drop(self, env: Environment) -> None:
        try:
            await close_quietly(env)
        finally:
            self.places.give_back()


async def close_quietly(env: Environment, seconds: float = Deadlines().close) -> None:
    """Close `env`, for `seconds` at most. Whatever it raises, the end of the process included, is nobody's concern."""
    try:
        async with asyncio.timeout(seconds):
            await env.close()
    except BaseException as error:
        if is_own(error):
            raise


def is_own(error: BaseException) -> bool:
    """Whether the running task itself is being ended; a server counts no `KeyboardInterrupt` as that."""
    return not isinstance(error, KeyboardInterrupt) and is_meant(error)
