"""An environment that says what it is told: for `palaestra serve --import`."""

from typing import Any

from palaestra import Env, Reset, Step, register


@register("bench/Echo-v0")
class Echo(Env[str, str]):
    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        return Reset(f"ready {seed}", {})

    async def step(self, action: str) -> Step[str]:
        return Step(action, 0.0, False, False, {})
