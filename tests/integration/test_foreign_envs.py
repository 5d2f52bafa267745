"""Environments on other people's code, wherever they run: forked and replayed, they go the same way."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from palaestra import make
from palaestra.envs.episode import seen
from palaestra.envs.fork import fork_by_replay
from palaestra.envs.isolation.placement import Kind, Placement
from palaestra.envs.registry import spec

ENVIRONMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "babyai": ("babyai/Text-v0", {"level": "PutNextLocal"}),
    "textworld": ("textworld/Game-v0", {"level": "cooking-easy"}),
    "textworld-express": ("textworld-express/Game-v0", {"game": "sorting"}),
}
"""Extra -> an environment that needs it, and its arguments."""
PACKAGES = {"babyai": "minigrid", "textworld": "textworld", "textworld-express": "textworld_express"}

# TextWorld ignores this warning of its interpreter's from its import on; pytest forgets that for each test.
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The cache that TextWorld's games lie in."""
    with pytest.MonkeyPatch.context() as patch:
        kept = os.environ.get("PALAESTRA_TEXTWORLD_GAMES") or str(tmp_path_factory.mktemp("games"))
        patch.setenv("PALAESTRA_CACHE", kept)
        yield kept


@pytest.fixture(params=ENVIRONMENTS)
def extra(request: pytest.FixtureRequest) -> str:
    """An extra that is installed."""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"not installed: pip install 'palaestra[{request.param}]'")
    if request.param == "textworld-express" and shutil.which("java") is None:
        pytest.skip("Java is not installed: apt-get install default-jre-headless")
    return str(request.param)


@pytest.mark.parametrize("kind", ["inline", "thread", "process"])
def test_siblings_go_their_own_way_and_a_replay_goes_the_same(extra: str, kind: Kind, games: str) -> None:
    id, kwargs = ENVIRONMENTS[extra]
    placed = Placement(kind=kind, environ={"PALAESTRA_CACHE": games})
    where = msgspec.structs.replace(spec(id), placement=placed)

    async def play() -> None:
        async with make(where, **kwargs) as env:
            step: Any = await env.reset(seed=1)
            for _ in range(2):
                step = await env.step(await env.oracle())
            twin, other, closed = await env.fork(3)
            await other.step(step.info["admissible_commands"][0])
            await closed.close()
            [again] = await fork_by_replay(env)
            fates = [await to_the_end(one) for one in (twin, env, again)]
            assert fates[0] == fates[1] == fates[2]
            for sibling in (twin, other, again):
                await sibling.close()

    asyncio.run(play())


async def to_the_end(env: Any) -> list[str]:
    """What the oracle sees on its way to success."""
    went = []
    while True:
        step = await env.step(await env.oracle())
        went.append(seen("", step))
        if step.terminated or step.truncated:
            assert step.info["success"]
            return went
