"""Sessions of tests that run in an interpreter with a name."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from palaestra.envs.isolation.named import environ_of, python_of
from palaestra.errors import EnvError

ROOT = Path(__file__).parents[2]


def session(name: str, folder: Path, *, installed: bool = False) -> dict[str, Any]:
    """What `NAME_session.py` writes into `folder/result.json`; skips where there is no such interpreter.

    Args:
        name: of the interpreter and the session.
        folder: empty.
        installed: let the package's entry points be found, as where pip has installed it.
    """
    try:
        python = python_of(name)
    except EnvError as error:
        pytest.skip(str(error))
    environ = {**environ_of(name), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if installed:
        environ["PYTHONPATH"] = str(_as_installed(folder / "site"))
    command = [python, str(ROOT / "tests" / "support" / f"{name}_session.py"), str(folder)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=850, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return {**found, "cache": os.fspath(Path(python).parents[2])}


def _as_installed(site: Path) -> Path:
    """A folder like pip's: the package, and the entry points that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = site / f"palaestra-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "palaestra").symlink_to(ROOT / "palaestra")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: palaestra\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site
