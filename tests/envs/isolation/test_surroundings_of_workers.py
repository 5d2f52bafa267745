"""What a worker process finds, and what it cannot find."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest

from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.registry import EnvSpec, make

TYPED = """
import asyncio
from palaestra import Env, make, register
from palaestra.errors import EnvError

class Typed(Env): ...

register("t/Typed-v0", Typed, placement="process")
try:
    asyncio.run(make("t/Typed-v0").reset())
except EnvError as error:
    print(error)
"""


class Secretive(Env[str, str]):
    """Says what token it finds."""

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        return Reset(os.environ.get("PALAESTRA_TOKEN", "none"), {})

    async def step(self, action: str) -> Step[str]:
        return Step("", 0.0, False, False, {})


@pytest.mark.parametrize(("environ", "found"), [({}, "none"), ({"PALAESTRA_TOKEN": "its own"}, "its own")])
def test_the_token_of_this_process_is_none_of_theirs(
    environ: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALAESTRA_TOKEN", "a token that is long enough")
    placement = Placement(kind="process", environ={"PALAESTRA_TEST_ANEW": found, **environ})
    made = EnvSpec(id="t/Secretive-v0", entry_point=f"{__name__}:Secretive", placement=placement)

    async def go() -> None:
        async with make(made) as env:
            assert (await env.reset(seed=0)).observation == found

    asyncio.run(go())


def test_what_was_typed_in_is_to_be_moved_to_a_module() -> None:
    done = subprocess.run([sys.executable, "-"], input=TYPED, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot import '__main__:Typed', which is in no file; move the class to a module" in done.stdout
