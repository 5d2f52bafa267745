"""Cached virtual environments: made by pip for whoever asks first, kept for everybody after.

Each lives in a folder named by the hash of what it is made of. A lock on a file beside it makes one builder of many;
the file `complete.json` is written last, so that what a kill left half-done is built anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from palaestra.errors import EnvError
from palaestra.files import cache_root

WORKER_NEEDS = (f"msgspec=={msgspec.__version__}",)
"""What a worker of ours imports beside the standard library, at the version that packs our messages."""

Tell = Callable[[str], None]
"""Called with a line about what is being done."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a virtual environment is made of; equal recipes share one."""

    requirements: tuple[str, ...]
    """As pip takes them."""
    python: str
    """Path of the interpreter that it is based on."""
    version: str
    """Of that interpreter, in full, as `sys.version` has it."""
    complete: bool = False
    """The requirements name every package: pip adds none, whatever a package says that it wants."""

    @property
    def key(self) -> str:
        """Hash of the recipe and of what workers need."""
        parts = [*sorted(self.requirements), *WORKER_NEEDS, os.path.realpath(self.python), self.version]
        parts += ["complete"] if self.complete else []
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()

    @property
    def venv(self) -> Venv:
        """Its place in the cache, built or not."""
        return Venv(cache_folder() / self.key)


@dataclass(frozen=True, slots=True)
class Venv:
    """A place in the cache for one virtual environment."""

    home: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    @property
    def mark(self) -> Path:
        """The file that says that it is complete, and of what it is made."""
        return self.home / "complete.json"

    @property
    def log(self) -> Path:
        """What pip said, kept also where it failed."""
        return self.home.with_name(f"{self.home.name}.log")

    @property
    def ready(self) -> bool:
        """Whether it can be used. One whose base interpreter has been deleted cannot."""
        return self.mark.is_file() and self.python.exists()

    def recipe(self) -> Recipe | None:
        """What it is made of; `None` where that is not known."""
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self.mark.read_bytes(), type=Recipe)
        return None

    async def remove(self) -> None:
        """Delete it with its log, after whoever is building it."""
        async with _locked(self.home):
            self._delete()
            for suffix in (".log", ".lock"):
                self.home.with_name(self.home.name + suffix).unlink(missing_ok=True)

    def _delete(self) -> None:
        self.mark.unlink(missing_ok=True)  # first: half of one must never look complete
        shutil.rmtree(self.home, ignore_errors=True)


def cache_folder() -> Path:
    """Where virtual environments are kept."""
    return cache_root() / "interpreters"


def not_writable(error: OSError) -> EnvError:
    """What a person is told when something cannot be kept."""
    return EnvError(
        f"cannot write to {cache_root()}: {error.strerror or error}; name another folder in PALAESTRA_CACHE"
    )


def cached() -> list[Venv]:
    """Every virtual environment in the cache, complete or not, by name."""
    folder = cache_folder()
    names = {path.name.partition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()
    return [Venv(folder / name) for name in sorted(names)]


async def built(recipe: Recipe, tell: Tell = lambda line: None) -> Venv:
    """The virtual environment of `recipe`, made now if nobody has made it yet.

    Any number of processes may ask at the same time; one builds and the others wait. A cancelled or failed build
    leaves nothing but its log.

    Raises:
        EnvError: it cannot be built; the message has pip's last word and the path of the log.
    """
    for requirement in recipe.requirements:
        if requirement.lstrip().startswith("-") or not requirement.strip():
            raise EnvError(f"{requirement!r} is no requirement; put pip's options into its own configuration (PIP_...)")
    venv = recipe.venv
    if venv.ready:
        return venv
    try:
        async with _locked(venv.home, tell) as lock:
            if not venv.ready:
                await _build(venv, recipe, lock, tell)
    except OSError as error:
        raise not_writable(error) from error
    return venv


async def _build(venv: Venv, recipe: Recipe, lock: int, tell: Tell) -> None:
    venv._delete()
    pip = [str(venv.python), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    bare = ["--no-deps"] if recipe.complete else []
    commands = (
        [recipe.python, "-I", "-m", "venv", str(venv.home)],
        # Apart, and last: a package that pins another version of what workers need is overruled, not refused.
        *([[*pip, *bare, "--", *recipe.requirements]] if recipe.requirements else []),
        [*pip, "--", *WORKER_NEEDS],
    )
    try:
        with venv.log.open("wb", buffering=0) as log:
            for command in commands:
                log.write(f"$ {' '.join(command)}\n".encode())
                if await _run(command, log.fileno(), lock, tell) != 0:
                    raise EnvError(f"{_last_word(venv.log)}; the full log is {venv.log}")
        unmarked = venv.mark.with_suffix(".new")
        unmarked.write_text(msgspec.json.encode(recipe).decode())
        unmarked.replace(venv.mark)
    except BaseException:
        venv._delete()
        raise


async def _run(command: Sequence[str], log: int, lock: int, tell: Tell) -> int:
    """Run `command` to its end; its output goes to `log`, and line by line to `tell`.

    It inherits the lock: should this process be killed, nobody builds in the same folder before it, too, has ended.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        pass_fds=(lock,),
    )
    assert process.stdout is not None
    try:
        while said := await process.stdout.read(1 << 16):
            os.write(log, said)
            for line in said.decode(errors="replace").splitlines():
                tell(line)
        return await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _last_word(log: Path) -> str:
    """The line of a failed build that says most: the last error, else the last line."""
    text = log.read_text(errors="replace")
    if "ensurepip is not" in text:
        return "its Python has no ensurepip; on Debian run: apt install python3-venv"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return (errors or lines)[-1].removeprefix("ERROR: ")[:500]


@asynccontextmanager
async def _locked(home: Path, tell: Tell = lambda line: None) -> AsyncIterator[int]:
    """Hold the lock of `home`; yields its descriptor."""
    path = home.with_name(f"{home.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = await _acquire(path, tell)
    try:
        yield lock
    finally:
        os.close(lock)


async def _acquire(path: Path, tell: Tell) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _try_lock(lock):
                tell("another process is building it")
                await asyncio.sleep(0.1)
            if _is(path, lock):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the file was removed while this waited for it, and guards nothing any more


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, opened: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(opened))
    return False
