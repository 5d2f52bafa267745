"""An interpreter of its own for tests: a virtual environment that holds only what a worker needs."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from palaestra.envs.isolation.placement import Placement
from palaestra.envs.isolation.venvs import Recipe, built
from palaestra.errors import EnvError

_FOLDER = tempfile.TemporaryDirectory(prefix="palaestra-test-")
atexit.register(_FOLDER.cleanup)


@contextmanager
def own_interpreter() -> Iterator[Placement]:
    """Its placement, with a cache that goes away with this process; skips where pip reaches no package index."""
    before = os.environ.get("PALAESTRA_CACHE")
    os.environ["PALAESTRA_CACHE"] = _FOLDER.name
    try:
        if problem := _problem():
            pytest.skip(f"no interpreter could be built (is there a package index?): {problem}")
        yield Placement(kind="interpreter")
    finally:
        if before is None:
            del os.environ["PALAESTRA_CACHE"]
        else:
            os.environ["PALAESTRA_CACHE"] = before


@cache
def _problem() -> str:
    """Build it, once; why it cannot be built, else empty."""
    try:
        asyncio.run(built(Recipe((), sys.executable, sys.version)))
    except EnvError as error:
        return str(error)
    return ""
