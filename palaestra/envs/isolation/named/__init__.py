"""Interpreters by name, for whole programs that want other versions than ours: `palaestra interpreters --build NAME`.

`NAME.txt` beside this file is what pip freezes of one: every package with its version, a line each; lines with `#` say
why. With the line `# complete` pip adds nothing, whatever a package says that it wants. They are kept, built and
removed like the interpreters of environments. Nothing of ours is installed in one: its programs find this package by
`PYTHONPATH`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from palaestra.envs.isolation.interpreters import package_folder
from palaestra.envs.isolation.venvs import Recipe, Tell, Venv, built
from palaestra.errors import EnvError, UnknownNameError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Those there are."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def recipe_of(name: str) -> Recipe:
    """What the interpreter is made of.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in names():
        raise UnknownNameError("interpreter", name, names())
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    wanted = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return Recipe(wanted, sys.executable, sys.version, complete="# complete" in lines)


async def build(name: str, tell: Tell = lambda line: None) -> Venv:
    """Make it where it is not there yet.

    Raises:
        UnknownNameError: there is none of that name.
        EnvError: it cannot be built.
    """
    try:
        return await built(recipe_of(name), tell)
    except EnvError as error:
        raise EnvError(f"cannot build the interpreter {name!r}: {error}") from error


def python_of(name: str) -> str:
    """Its Python, which is there.

    Raises:
        UnknownNameError: there is none of that name.
        EnvError: it has not been built.
    """
    venv = recipe_of(name).venv
    if not venv.ready:
        raise EnvError(f"the interpreter {name!r} is not there; run: palaestra interpreters --build {name}")
    return str(venv.python)


def environ_of(name: str) -> dict[str, str]:
    """This process's environment variables, with which its programs find our package and those of no other."""
    return {**os.environ, "PYTHONPATH": package_folder(), "PYTHONNOUSERSITE": "1"}
