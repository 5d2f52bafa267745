"""Generated games on disk: each is made once, whoever asks for it, and appears complete or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import msgspec

from palaestra.envs.hashing import digest
from palaestra.envs.textworld import generate
from palaestra.envs.textworld.recipe import Recipe
from palaestra.errors import EnvError, MissingExtraError
from palaestra.files import cache_root

SECONDS = 600
"""Most time to make a game; the largest take some seconds."""

_benches = threading.BoundedSemaphore(os.cpu_count() or 1)
"""As many games are made at once by this process as the machine has cores."""


def game_file(recipe: Recipe) -> Path:
    """The `.z8` file of the game, its `.json` beside it; made now if nobody has before, which takes seconds.

    Games lie in `textworld` in the cache, `$PALAESTRA_CACHE` or `~/.cache/palaestra`.

    Raises:
        EnvError: TextWorld cannot make it, or the cache cannot be written.
        MissingExtraError: textworld is not installed.
    """
    folder = cache_root() / "textworld" / _key(recipe)
    game = folder / "game.z8"
    if not game.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _benches, _locked(folder.with_suffix(".lock")):
                if not game.exists():
                    _make(recipe, folder)
        except OSError as error:
            raise EnvError(f"cannot write games to {folder.parent}: {error}; set PALAESTRA_CACHE") from error
    return game


def _key(recipe: Recipe) -> str:
    try:
        version = metadata.version("textworld")
    except metadata.PackageNotFoundError:
        raise MissingExtraError("textworld", "textworld") from None
    name = digest(version, recipe.challenge, recipe.arguments(), recipe.seed)
    return f"{recipe.challenge}-{recipe.seed}-{name}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all threads and processes that lock `path`. A killed process leaves no lock behind."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(recipe: Recipe, folder: Path) -> None:
    wanted = {"challenge": recipe.challenge, "arguments": recipe.arguments(), "seed": recipe.seed}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-", ignore_cleanup_errors=True) as making:
        _run(msgspec.json.encode(wanted), making)
        finished = Path(making, "finished")
        finished.mkdir()
        for name in ("game.json", "game.z8"):
            os.replace(Path(making, name), finished / name)
        shutil.rmtree(folder, ignore_errors=True)  # what is there has no game in it
        os.replace(finished, folder)


def _run(wanted: bytes, folder: str) -> None:
    command = [sys.executable, "-P", "-W", "ignore", generate.__file__, folder]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, input=wanted, capture_output=True, timeout=SECONDS, env=environ, cwd=folder)
    except subprocess.TimeoutExpired:
        raise EnvError(f"TextWorld made no game within {SECONDS} s: {wanted.decode()}") from None
    if done.returncode or not Path(folder, "game.z8").exists():
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise EnvError(f"TextWorld cannot make this game: {said[-1]}: {wanted.decode()}")
