"""Environments in worker processes of another Python environment, which has dependencies of its own.

All that the other interpreter gets of ours is a folder with a link to this package, and the folder of the environment's
own module where that is a plain file; never our installed packages.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from palaestra.envs.isolation.channel import Channel
from palaestra.envs.isolation.venvs import WORKER_NEEDS, Recipe, Tell, built, not_writable
from palaestra.envs.registry import EnvSpec
from palaestra.errors import EnvError
from palaestra.files import cache_root

PACKAGE = Path(__file__).parents[2]
"""The folder of `palaestra` itself."""
OLDEST = (3, 11)
"""Version of Python that our code needs."""
PROBE_SECONDS = 60.0

_PROBE = """
import json, sys
missing = ""
if sys.version_info >= (3, 11):
    try:
        import palaestra.envs.isolation.forkserver, palaestra.envs.isolation.worker
    except ImportError as error:
        missing = str(error)
print(json.dumps({"version": sys.version, "minor": sys.version_info[:2], "missing": missing}))
"""


class Probed(msgspec.Struct, frozen=True):
    """What an interpreter says about itself."""

    version: str
    """`sys.version`."""
    minor: tuple[int, int]
    missing: str
    """Why a worker of ours cannot start in it; empty if it can."""


async def open_interpreter(spec: EnvSpec) -> Channel:
    """A channel to a worker process of the interpreter that the placement of `spec` asks for.

    With requirements, or without anything, a virtual environment, built now if nobody built it before, which may take
    minutes; with `python` alone that interpreter as it is.

    Raises:
        EnvError: the interpreter is not there or cannot be built, or a worker cannot start in it.
        WorkerError: a worker did not start.
    """
    from palaestra.envs.isolation.processes import open_process

    python = await _interpreter(spec)
    asked = spec.placement.environ
    path = [package_folder(), *own_folders(spec), asked.get("PYTHONPATH", "")]
    environ = {**asked, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    placement = msgspec.structs.replace(spec.placement, environ=environ)
    return await open_process(msgspec.structs.replace(spec, placement=placement), python=python)


async def _interpreter(spec: EnvSpec) -> str:
    placement = spec.placement
    base = _found(spec.id, placement.python) if placement.python else sys.executable
    if placement.python and not placement.requirements:
        probed = await _probed(spec.id, base)
        if probed.missing:
            needs = " ".join(WORKER_NEEDS)
            raise EnvError(
                f"{spec.id}: no worker can start in {base}: {probed.missing}; run: {base} -m pip install {needs}"
            )
        return base
    version = (await _probed(spec.id, base)).version if placement.python else sys.version
    return await _built(spec.id, Recipe(placement.requirements, base, version))


async def _built(id: str, recipe: Recipe) -> str:
    venv = recipe.venv
    if not venv.ready:
        try:
            with _shown(f"an interpreter for {id}, once: pip install {' '.join(recipe.requirements)}") as tell:
                await built(recipe, tell)
        except EnvError as error:
            raise EnvError(f"cannot build the interpreter of {id}: {error}") from error
    return str(venv.python)


def _found(id: str, python: str) -> str:
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise EnvError(f"{id}: there is no Python at {python!r}; give the path of one in placement.python")
    return os.path.abspath(found)


_PROBES: dict[str, Probed] = {}
"""By path; those that are fit to use."""


async def _probed(id: str, python: str) -> Probed:
    """Ask the interpreter once a process.

    Raises:
        EnvError: it does not answer, or is too old.
    """
    if python in _PROBES:
        return _PROBES[python]
    said, complaint = await _run_probe(python)
    try:
        probed = msgspec.json.decode(said, type=Probed)
    except msgspec.MsgspecError:
        raise EnvError(f"{id}: {python} does not work as a Python: {complaint or 'it says nothing'}") from None
    if probed.minor < OLDEST:
        major, minor = probed.minor
        raise EnvError(f"{id}: {python} is Python {major}.{minor}; workers need {OLDEST[0]}.{OLDEST[1]} or newer")
    if not probed.missing:
        _PROBES[python] = probed
    return probed


async def _run_probe(python: str) -> tuple[bytes, str]:
    """What it printed, and the last line of what it complained about."""
    folder = package_folder()
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _PROBE),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return b"", error.strerror or str(error)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            said, complaints = await process.communicate()
    except TimeoutError:
        return b"", f"it did not answer in {PROBE_SECONDS:g} s"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return said, (complaints.decode(errors="replace").strip().splitlines() or [""])[-1][:300]


def package_folder() -> str:
    """A folder that holds nothing but a link to this package.

    Raises:
        EnvError: it cannot be made.
    """
    name = hashlib.blake2b(os.fsencode(PACKAGE), digest_size=6).hexdigest()
    link = cache_root() / "links" / name / PACKAGE.name
    if not link.is_symlink() or os.readlink(link) != str(PACKAGE):
        new = link.with_name(f"{link.name}.{os.getpid()}")
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            new.symlink_to(PACKAGE)
            new.replace(link)
        except OSError as error:
            raise not_writable(error) from error
    return str(link.parent)


def own_folders(spec: EnvSpec) -> list[str]:
    """Where the modules of the environment and its wrappers lie, without those that pip installed here."""
    entry_points = [spec.entry_point, *(wrapper.entry_point for wrapper in spec.wrappers)]
    modules = {entry_point.partition(":")[0].partition(".")[0] for entry_point in entry_points}
    folders = {_folder(module) for module in modules - {PACKAGE.name, "__main__"}}
    return sorted(folder for folder in folders if folder and not _is_installed(folder))


def _folder(module: str) -> str | None:
    """Of a top-level module, which is not imported; `None` if there is none."""
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec(module)
        places = list(found.submodule_search_locations or [found.origin or ""]) if found else []
        return next((str(Path(place).absolute().parent) for place in places if os.path.exists(place)), None)
    return None


def _is_installed(folder: str) -> bool:
    stdlib = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return Path(folder).name in ("site-packages", "dist-packages") or folder in stdlib


@contextmanager
def _shown(title: str) -> Iterator[Tell]:
    """Show on standard error, where that is a terminal, what is being done."""
    from rich.console import Console  # never in a worker, and seldom here
    from rich.file_proxy import FileProxy
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: None
    elif isinstance(sys.stderr, FileProxy):  # somebody's progress bar is there, which puts lines above itself
        print(title, file=sys.stderr)
        yield lambda line: None
    else:
        with console.status(Text(title)) as status:
            yield lambda line: status.update(Text(f"{title} · {line.strip()}"[: console.width - 4]))
