"""The `verifiers` suite: `verifiers/TASKSET:SPLIT`, for every taskset that can be imported."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from palaestra.envs.isolation.interpreters import package_folder
from palaestra.envs.isolation.placement import Placement
from palaestra.envs.isolation.venvs import Recipe, built
from palaestra.envs.registry import spec
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.envs.verifiers.chosen import EXAMPLE, Chosen, chosen
from palaestra.envs.verifiers.env import PATH_VARIABLE
from palaestra.errors import DataError, EnvError, UnknownNameError

ENV = "verifiers/Environment-v0"
LISTING_SECONDS = 600.0


class Listed(msgspec.Struct, frozen=True):
    """What the listing says."""

    rows: list[tuple[int, str, str]] = []
    """Index, name, split."""
    own_splits: bool = False
    """Whether the taskset was asked for one split, and knows no rows of another."""
    error: str = ""


_LISTED: dict[bytes, Listed] = {}
"""What was listed before, by choice; without the split where the taskset has no splits of its own."""


def load(split: str, level: str | None = None, *, path: str = "", env: str = "", **args: Any) -> TaskSuite:
    """The rows of one split of a taskset.

    Args:
        split: `train`, `validation` or `test`; other names only where the taskset has a `split` of its own.
        level: id of the taskset, which is the name of its module; the default is an example, `sums-taskset`.
        path: folders to look for it in, beside `PALAESTRA_VERIFIERS_PATH`.
        env: id of the environment that plays it, where it is not the taskset's own.
        args: settings of the taskset.

    Raises:
        EnvError: verifiers cannot be had, or the taskset cannot be loaded.
        UnknownNameError: no such split.
    """
    given = {"taskset": level or EXAMPLE, "env": env, "args": args, "split": split, "path": path}
    choice = chosen(given, Chosen())
    rows = [(index, name) for index, name, of in _listed(choice) if of == split]
    if not rows and split not in SPLITS:
        raise UnknownNameError(f"split of {choice.taskset}", split, SPLITS)
    params = {name: value for name, value in given.items() if value}
    name = f"verifiers/{choice.taskset}"
    return TaskSuite(name, split, len(rows), lambda at: _task(choice, params, *rows[at]))


def _task(choice: Chosen, params: dict[str, Any], index: int, name: str) -> Task:
    whole = {**params, "index": index}
    return Task(env=ENV, name=name, split=choice.split, seed=index, params=whole, kind=choice.taskset)


def _listed(choice: Chosen) -> list[tuple[int, str, str]]:
    """The rows of all splits, or of one where the taskset has its own; asked for once a process."""
    folders = os.pathsep.join(filter(None, [choice.path, os.environ.get(PATH_VARIABLE, "")]))
    choice = msgspec.structs.replace(choice, path=folders)
    whole = msgspec.structs.replace(choice, split="").key
    known = _LISTED.get(whole) or _LISTED.get(choice.key)
    if known is None:
        known = _asked(choice)
        _LISTED[choice.key if known.own_splits else whole] = known
    return known.rows


def _asked(choice: Chosen) -> Listed:
    """Asked in the interpreter that has verifiers; it answers with data only."""
    placement = spec(ENV).placement
    folders = [package_folder(), placement.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, **placement.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [_python(placement), "-m", "palaestra.envs.verifiers.listing"]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(choice), capture_output=True, env=environ, timeout=LISTING_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise EnvError(f"{choice.taskset!r} was not loaded in {LISTING_SECONDS:g} s") from None
    try:
        listed = msgspec.json.decode(done.stdout, type=Listed)
    except msgspec.MsgspecError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:500]
        raise DataError(f"the rows of {choice.taskset!r} could not be listed: {last}") from None
    if listed.error:
        raise EnvError(listed.error)
    return listed


def _python(placement: Placement) -> str:
    """The interpreter that has verifiers; built now if nobody built it before."""
    if placement.kind != "interpreter":
        return sys.executable
    if placement.python and not placement.requirements:
        return placement.python
    recipe = Recipe(placement.requirements, sys.executable, sys.version)
    if recipe.venv.ready:
        return str(recipe.venv.python)
    with ThreadPoolExecutor(1) as pool:  # apart from whatever loop runs here
        return str(pool.submit(lambda: asyncio.run(built(recipe))).result().python)
