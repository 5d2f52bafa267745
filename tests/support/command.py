"""The command line in tests: recipes of seconds, one-line complaints, faults at a chosen moment."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.levers import levers_recipe, register_levers, save_tiny_model

from palaestra.cli.main import main
from palaestra.config import to_yaml

SHORT = ("budget.iterations=3", "checkpoint.every=1", "evaluation.every=2")
"""Everything that training does, in a second or two."""


def write_recipe(folder: Path, *overrides: str) -> Path:
    """A recipe file for the levers, whose model is in `folder/base` and whose run goes to `folder/run`."""
    register_levers()
    save_tiny_model(folder / "base")
    path = folder / "levers.yaml"
    path.write_text(to_yaml(levers_recipe(folder, *SHORT, *overrides)))
    return path


def complaint(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> str:
    """Run the command, which must fail with `code`, and return what it says on standard error: one line."""
    capsys.readouterr()
    assert main(argv) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("iteration ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("palaestra: ")
    return lines[0]


def at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Callable[[], None], call: int = 1) -> None:
    """Let `fault` happen just before the `call`-th call of the function `owner.name`, which runs all the same."""
    real, left = getattr(owner, name), call

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            fault()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


@contextmanager
def disk_that_fills() -> Iterator[Callable[[], None]]:
    """Gives a function after whose call no file can grow beyond some bytes, until the end of the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def send(number: int) -> Callable[[], None]:
    """Sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)
