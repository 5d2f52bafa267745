"""`fork`: independent continuations of an episode, for every environment."""

from __future__ import annotations

import asyncio
from typing import Any

from palaestra.envs.core import Env, SupportsSnapshot
from palaestra.envs.ending import contained
from palaestra.envs.history import History, replay
from palaestra.envs.registry import make
from palaestra.errors import EnvError


async def fork(env: Env[Any, Any], n: int = 1) -> list[Env[Any, Any]]:
    """See `Env.fork`: by snapshot where `env` has them, else by replay."""
    if n < 0:
        raise EnvError(f"cannot fork {n} times")
    if not isinstance(env, SupportsSnapshot):
        return await fork_by_replay(env, n)
    siblings = [_another(env) for _ in range(n)]
    try:
        state = await env.snapshot()
        for sibling in siblings:
            await sibling.restore(state)  # type: ignore[attr-defined]  # of the same class
    except BaseException:
        await close_all(siblings)
        raise
    return siblings


async def fork_by_replay(env: Env[Any, Any], n: int = 1) -> list[Env[Any, Any]]:
    """Continuations that have been played again from the start, whatever else the environment offers."""
    history = history_of(env)
    return await replay_into([_another(env) for _ in range(n)], history)


async def replay_into(siblings: list[Env[Any, Any]], history: History) -> list[Env[Any, Any]]:
    """`siblings`, each of which has played `history`; where one cannot, all are closed."""
    try:
        await _replay_all(siblings, history)
    except BaseException:
        await close_all(siblings)
        raise
    return siblings


def history_of(env: Env[Any, Any]) -> History:
    """A copy of the episode so far, as the environment's own record has it.

    Raises:
        EnvError: no episode has begun, or nobody keeps a record.
    """
    history = getattr(env, "history", None)
    if not isinstance(history, History):
        raise EnvError("cannot fork: no episode has begun; call reset first")
    return history.copy()


async def close_all(envs: list[Env[Any, Any]]) -> None:
    """Close every one, whatever the others do, `sys.exit()` included."""
    await asyncio.gather(*(contained(env.close()) for env in envs), return_exceptions=True)


async def _replay_all(siblings: list[Env[Any, Any]], history: History) -> None:
    await asyncio.gather(*(contained(replay(sibling, history)) for sibling in siblings))


def _another(env: Env[Any, Any]) -> Env[Any, Any]:
    if env.spec is None:
        raise EnvError("cannot fork an environment without a spec; register it and make it by its id")
    return make(env.spec)
