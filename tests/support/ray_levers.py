"""What Ray's workers import: the levers, with steps that take a moment."""

from __future__ import annotations

import asyncio

from support import levers

from palaestra.envs.core import Step
from palaestra.envs.registry import register

levers.register_levers()


class Slow(levers.Levers):
    async def step(self, action: str) -> Step[str]:
        await asyncio.sleep(0.2)
        return await super().step(action)


register(levers.ENV, Slow, override=True)
