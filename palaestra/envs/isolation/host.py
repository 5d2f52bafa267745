"""The far side of a channel: one environment that answers calls."""

from __future__ import annotations

import math
import traceback
from typing import Any

import msgspec

from palaestra.envs.core import Env
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.isolation.protocol import (
    Ask,
    Call,
    Failed,
    Made,
    Make,
    ResetCall,
    ResetDone,
    Result,
    StepCall,
    StepDone,
    Value,
)
from palaestra.envs.registry import EnvSpec, make
from palaestra.errors import EnvError

CAPABILITIES = ("oracle", "verify", "tools", "render")
_ASKED = ("oracle", "verify", "render", "close")


class Host:
    """Holds one environment and does what calls say. It never raises: what goes wrong is answered as `Failed`."""

    def __init__(self, env: Env[Any, Any] | None = None) -> None:
        self.env = env

    async def answer(self, call: Call) -> Result:
        """Do what `call` says."""
        try:
            return await self._do(call)
        except Exception as error:
            return failure(error)

    async def _do(self, call: Call) -> Result:
        if isinstance(call, Make):
            return await self._make(call.spec)
        env = self._held
        if isinstance(call, ResetCall):
            observation, info = await env.reset(seed=call.seed, task=call.task, options=call.options)
            tools = [dict(tool) for tool in env.tools()] if hasattr(env, "tools") else None
            return ResetDone(observation, _checked(info), tools)
        if isinstance(call, StepCall):
            observation, reward, terminated, truncated, info = await env.step(call.action)
            return StepDone(observation, _finite(reward), bool(terminated), bool(truncated), _checked(info))
        return await self._ask(env, call)

    async def _make(self, spec: EnvSpec) -> Made:
        await self.close()
        self.env = env = make(msgspec.structs.replace(spec, placement=Placement()))
        await env.start()
        return Made(tuple(name for name in CAPABILITIES if hasattr(env, name)))

    async def _ask(self, env: Env[Any, Any], call: Ask) -> Value:
        if call.method not in _ASKED or not hasattr(env, call.method):
            raise EnvError(f"the environment has no {call.method!r}")
        if call.method == "close":
            await self.close()
            return Value()
        return Value(await getattr(env, call.method)())

    async def close(self) -> None:
        """Close the environment, if there is one."""
        env, self.env = self.env, None
        if env is not None:
            await env.close()

    @property
    def _held(self) -> Env[Any, Any]:
        if self.env is None:
            raise EnvError("the environment is not made yet, or closed")
        return self.env


def failure(error: BaseException) -> Failed:
    """What an exception says to the other side."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return Failed(type(error).__name__, " ".join(str(error).split())[:2000], where)


def _checked(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise EnvError(f"an info is a {type(info).__name__}; make it a dict")
    for key in info:
        if not isinstance(key, str):
            raise EnvError(f"an info has the key {key!r}, a {type(key).__name__}; make it a str")
    return info


def _finite(reward: Any) -> float:
    number = float(reward)
    if not math.isfinite(number):
        raise EnvError(f"a reward is {number}; make it a finite number")
    return number
