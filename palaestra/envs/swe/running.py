"""Running a package's own tests over some working tree in a sandbox, and who passed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from palaestra.envs.swe import outcomes
from palaestra.envs.swe.tree import write
from palaestra.errors import SandboxPathError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import Limits, SandboxSpec

_PLUGIN = "palaestra_outcomes"
_OUTCOMES = "/work/outcomes.jsonl"
_PATCHED = 'git apply --whitespace=nowarn /work/patch; exec "$@"'


class Run(Struct, frozen=True):
    """What came of the tests."""

    outcomes: Mapping[str, str]
    """Node id -> `passed`, `failed`, `skipped`, `xfailed`; empty where pytest did not come to its end."""
    seconds: float
    """That it took."""
    output: str
    """The end of what it printed."""

    @property
    def passed(self) -> frozenset[str]:
        """Node ids of the tests that passed."""
        return frozenset(id for id, outcome in self.outcomes.items() if outcome == "passed")


class Suite(Struct, frozen=True, kw_only=True):
    """How the tests of a package are run."""

    site: Path
    """Folder of what they import, which goes to /work/site."""
    command: tuple[str, ...]
    """Runs pytest, in /work/repo."""
    env: dict[str, str]
    """Its variables."""
    limits: Limits
    """Of the sandbox."""
    seconds: float
    """After which it is killed."""
    image: str = ""
    """As in `SandboxSpec.image`."""


class Sandboxes:
    """Sandboxes of one back end, one after the other, for a program that does nothing else meanwhile."""

    def __init__(self, backend: str, **settings: Any) -> None:
        """Open a back end; nothing is started yet.

        Raises:
            UnknownNameError: there is no such back end.
            MissingExtraError: what it needs is not installed.
        """
        self._backend = open_backend(backend, **settings)
        self._runner = asyncio.Runner()
        self._doing: asyncio.Task[Any] | None = None

    def run(
        self,
        suite: Suite,
        repository: Mapping[str, bytes] | Path,
        overlay: Mapping[str, bytes] | None = None,
        *,
        removed: Sequence[str] = (),
        patch: str = "",
    ) -> Run:
        """Run tests in a copy of a repository, without a network.

        Args:
            suite: how.
            repository: its files, or a folder that has them.
            overlay: files to be laid over the repository.
            removed: files and folders to be removed before that.
            patch: a unified diff to be applied, by git, before the tests run.

        Raises:
            SandboxError: there is no sandbox for it.
        """
        with tempfile.TemporaryDirectory(prefix="palaestra-swe-") as name:
            work = Path(name)
            _compose(work / "repo", repository, overlay or {}, removed)
            write({f"{_PLUGIN}.py": Path(outcomes.__file__).read_bytes()}, work / "plugin")
            (work / "patch").write_text(patch, encoding="utf-8")
            command = ("sh", "-ec", _PATCHED, "sh", *suite.command) if patch else suite.command
            return self._runner.run(self._run(suite, work, (*command, "-p", _PLUGIN)))

    async def _run(self, suite: Suite, work: Path, argv: tuple[str, ...]) -> Run:
        self._doing = asyncio.current_task()
        env = {**suite.env, outcomes.VARIABLE: _OUTCOMES}
        env["PYTHONPATH"] = f"{env['PYTHONPATH']}:/work/plugin"
        async with await self._backend.start(SandboxSpec(image=suite.image, env=env, limits=suite.limits)) as sandbox:
            for name, folder in (("repo", work / "repo"), ("plugin", work / "plugin"), ("site", suite.site)):
                await sandbox.upload(folder, name)
            await sandbox.upload(work / "patch", "patch")
            done = await sandbox.exec(Exec(argv=argv, cwd="repo", timeout=suite.seconds, output=16 * 1024))
            output = (done.stdout.text + done.stderr.text)[-4000:]
            try:
                found = _outcomes(await sandbox.read_file(_OUTCOMES))
            except SandboxPathError:  # pytest did not come to its end
                found = {}
            return Run(found if done.ending == "exit" else {}, done.seconds, output)

    def close(self) -> None:
        """End what runs. May be called more than once."""
        try:
            self._runner.run(self._close())
        finally:
            self._runner.close()

    async def _close(self) -> None:
        if self._doing is not None and not self._doing.done():  # an interruption has left it there
            self._doing.cancel()
            await asyncio.wait([self._doing])
        await self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _compose(
    place: Path, repository: Mapping[str, bytes] | Path, overlay: Mapping[str, bytes], removed: Sequence[str]
) -> None:
    if isinstance(repository, Path):
        shutil.copytree(repository, place, symlinks=True)
    else:
        place.mkdir()
        write(repository, place)
    for path in removed:
        if (place / path).is_dir():
            shutil.rmtree(place / path)
        else:
            (place / path).unlink(missing_ok=True)
    write(overlay, place)


def _outcomes(content: bytes) -> dict[str, str]:
    try:
        return dict(msgspec.json.Decoder(tuple[str, str]).decode_lines(content))
    except msgspec.MsgspecError:  # cut off, or not written by the plug-in
        return {}
