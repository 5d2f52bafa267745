"""Episodes of the software-engineering environment for tests: on bubblewrap, or on the engine that is at hand."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.swe_repository import VARIABLES, make_clone

from palaestra.envs.core import Reset
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task, load_suite


def need_bubblewrap() -> None:
    """Skip the test where there is no bubblewrap."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")


def need_docker() -> None:
    """Skip the test where there is no engine."""
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("no Docker engine: set DOCKER_HOST")


def make_rows(folder: Path) -> Path:
    """A file with one SWE-bench row, and beside it the clone that the row is about."""
    row = make_clone(folder / "repositories")
    file = folder / "test.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return file


def task_of(rows: Path, **params: Any) -> Task:
    """The task of the only row."""
    repositories = str(rows.parent / "repositories")
    given = {"path": str(rows), "repositories": repositories, "variables": VARIABLES, **params}
    return load_suite("swe/swebench:test", **given)[0]


@asynccontextmanager
async def begun(task: Task, **options: Any) -> AsyncIterator[tuple[Any, Reset[str]]]:
    """An environment with an episode that has begun."""
    env = make("swe/Repository-v0", **options)
    try:
        yield env, await env.reset(seed=task.seed, task=task)
    finally:
        await env.close()


def run(work: Coroutine[Any, Any, None], seconds: float = 120.0) -> None:
    """Run a test's coroutine."""

    async def within() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(within())
