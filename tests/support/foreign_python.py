"""Interpreters with a package of another ecosystem, as worker processes get them."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from palaestra.envs.isolation.venvs import Recipe, built


def python_with(*requirements: str) -> Path:
    """The interpreter of the cache that has `requirements`; built where tests may not be skipped, else skipped."""
    recipe = Recipe(requirements, sys.executable, sys.version)
    if not recipe.venv.ready:
        if os.environ.get("PALAESTRA_NO_SKIPS") != "1":
            pytest.skip(f"the interpreter with {' '.join(requirements)} is not built")
        asyncio.run(built(recipe))
    return recipe.venv.python
