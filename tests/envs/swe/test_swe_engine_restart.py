"""Episodes whose engine is restarted, or killed, while they go on."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.docker_engines import own_engine, things
from support.dockerd import BASE, Engine
from support.swe_episode import make_rows, run, task_of

from palaestra.agents.episode import Episode, RolloutLimits
from palaestra.agents.rollout import rollout
from palaestra.agents.scripted import ScriptedAgent
from palaestra.envs.registry import make
from palaestra.sandboxes.leases import leases

AGENT = ("<shell>echo one > new.txt</shell>", "<shell>cat new.txt</shell>", "<submit></submit>")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = own_engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("swe"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_episode_is_an_error_then_tried_again_and_nothing_is_left(
    engine: Engine, rows: Path, how: signal.Signals
) -> None:
    steps: list[str] = []

    def made(id: str, **options: Any) -> Any:
        """The engine is restarted in the middle of its second command."""
        env = make(id, settings={"host": engine.host}, **options)
        step = env.step

        async def breaking(action: Any) -> Any:
            steps.append(action)
            if len(steps) != 2:
                return await step(action)
            going = asyncio.create_task(step("<shell>sleep 50</shell>"))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(engine.stop, how=how)
            await asyncio.to_thread(engine.start)
            return await going

        env.step = breaking  # type: ignore[method-assign]
        return env

    async def play(retries: int) -> Any:
        task = task_of(rows, backend="docker", image=BASE)
        limits = RolloutLimits(retries=retries, max_turns=5)
        (trajectory,) = await rollout([Episode(task=task, id="e")], ScriptedAgent(list(AGENT)), made, limits)
        return trajectory

    async def both() -> None:
        lost = await play(retries=0)
        assert lost.status == "error"
        assert "the sandbox is lost" in lost.error
        steps.clear()
        again = await play(retries=1)
        assert again.status == "ok"
        assert "new.txt" in again.meta["patch"]

    run(both(), 200.0)
    for lease in leases():
        assert things(engine.host, lease.id) == []
