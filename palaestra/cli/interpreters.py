"""List the interpreters that were built for environments with dependencies of their own, or delete them."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser
from palaestra.errors import UnknownNameError
from palaestra.interrupts import cancelling

if TYPE_CHECKING:
    from palaestra.envs.isolation.venvs import Venv

EXAMPLES = """  palaestra interpreters
  palaestra interpreters --remove
  palaestra interpreters --remove 5b0e1c22a7d94f0c8a11
  palaestra interpreters --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="as listed (default: all)")
    parser.add_argument("--remove", action="store_true", help="delete them; the next use builds them again")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List or delete."""
    from palaestra.envs.isolation.venvs import cached

    venvs = {venv.home.name: venv for venv in cached()}
    for name in args.names:
        if name not in venvs:
            raise UnknownNameError("interpreter", name, venvs)
    chosen = [venvs[name] for name in args.names] or list(venvs.values())
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
