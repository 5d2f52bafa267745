"""List the interpreters of environments with dependencies of their own, build them ahead of time, or delete them."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser
from palaestra.errors import ConfigError, UnknownNameError
from palaestra.interrupts import cancelling

if TYPE_CHECKING:
    from palaestra.envs.isolation.venvs import Venv

EXAMPLES = """  palaestra interpreters
  palaestra interpreters --build gem/Game-v0
  palaestra interpreters --build trl verl
  palaestra interpreters --remove
  palaestra interpreters --remove 5b0e1c22a7d94f0c8a11
  palaestra interpreters --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="as listed (default: all); with --build, ids of environments, or programs: trl, verl, ...",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--build", action="store_true", help="build those of these environments or programs now, not at first use"
    )
    what.add_argument("--remove", action="store_true", help="delete them; the next use builds them again")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List, build or delete."""
    chosen = _built(args.names) if args.build else _chosen(args.names)
    rows = [_row(venv) for venv in chosen]
    if args.remove:
        for venv in chosen:
            with cancelling():
                asyncio.run(venv.remove())
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(("removed " if args.remove else "") + _line(row))
    return 0


def _chosen(names: list[str]) -> list[Venv]:
    from palaestra.envs.isolation.venvs import cached

    venvs = {venv.home.name: venv for venv in cached()}
    for name in names:
        if name not in venvs:
            raise UnknownNameError("interpreter", name, venvs)
    return [venvs[name] for name in names] or list(venvs.values())


def _built(ids: list[str]) -> list[Venv]:
    """The interpreters of these environments and programs, built where they were not; each once, whoever shares it.

    Raises:
        ConfigError: none is named.
        EnvError: one cannot be built, or no worker starts in it.
        UnknownNameError: there is no such environment.
    """
    from palaestra.envs.checks.supervisor import build_interpreter
    from palaestra.envs.isolation import named
    from palaestra.envs.isolation.venvs import cached
    from palaestra.envs.registry import spec

    if not ids:
        raise ConfigError("--build wants ids of environments, as in: palaestra interpreters --build gem/Game-v0")
    programs = [id for id in ids if id in named.names()]
    specs = [spec(id) for id in ids if id not in programs]
    wanted = set()
    for program in programs:
        with cancelling():
            asyncio.run(named.build(program))
        wanted.add(frozenset(named.recipe_of(program).requirements))
    for each in specs:
        placement = each.placement
        if placement.kind != "interpreter" or (placement.python and not placement.requirements):
            continue  # it runs in this one, or in one that somebody else made
        with cancelling():
            asyncio.run(build_interpreter(each))
        wanted.add(frozenset(placement.requirements))
    recipes = [(venv, venv.recipe()) for venv in cached() if venv.ready]
    return [venv for venv, recipe in recipes if recipe and frozenset(recipe.requirements) in wanted]


def _row(venv: Venv) -> dict[str, Any]:
    recipe = venv.recipe()
    return {
        "name": venv.home.name,
        "ready": venv.ready,
        "bytes": _size(venv.home),
        "requirements": list(recipe.requirements) if recipe else [],
        "python": recipe.version.split()[0] if recipe else "",
        "log": str(venv.log),
    }


def _line(row: dict[str, Any]) -> str:
    if not row["ready"]:
        return f"{row['name']}  not complete; {row['log']}"
    return f"{row['name']}  {row['bytes'] / 1e6:6.0f} MB  Python {row['python']}  {' '.join(row['requirements'])}"


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
