"""Where a grading runs its tests: a fresh sandbox with the task's initial state, its tests, and an agent's files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath

import msgspec

from palaestra.envs.swe.examiner import Request
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.report import MOST_BYTES, Report, read_report
from palaestra.envs.swe.rounds import Round
from palaestra.envs.swe.submission import Refused, Submission, import_roots, refusal, tests_of
from palaestra.errors import DataError, SandboxDaemonError, SandboxError, SandboxPathError
from palaestra.sandboxes.commands import Exec, ExecResult
from palaestra.sandboxes.core import Sandbox

EXAMINER = files("palaestra.envs.swe").joinpath("examiner.py").read_text("utf-8")
_PLAIN = ("--assert=plain", "--tb=native", "-p", "no:cacheprovider")
"""Failures are wanted, half of all tests are decoys: to say nicely what was different takes longer than the tests."""
SECONDS = 120.0
"""That laying files there may take."""
LARGEST_TEST = 8 * 1024 * 1024
"""Bytes of a file of tests."""

_LIST = """
import os, sys
for parent, folders, names in os.walk("."):
    folders[:] = [name for name in folders if name != ".git"]
    for name in names + [name for name in folders if os.path.islink(os.path.join(parent, name))]:
        place = os.path.join(parent, name)
        sys.stdout.buffer.write((b"l" if os.path.islink(place) else b"f") + os.fsencode(place[2:]) + b"\\0")
"""
_DELETE = """
import os, sys
for place in sys.stdin.buffer.read().split(b"\\0"):
    if place:
        os.unlink(place)
        try:
            os.removedirs(os.path.dirname(place) or b"/")
        except OSError:
            pass
"""


@dataclass
class Place:
    """One sandbox on its way to a verdict."""

    sandbox: Sandbox
    instance: Instance
    before: dict[str, bool] = field(default_factory=dict)
    """Paths of files that the task brings, its tests included -> whether it is a link."""

    async def lay_tests(self) -> None:
        """Put the task's tests in their place, and look at what is there then.

        Raises:
            DataError: they are not there, or the patch does not apply.
            SandboxError: they cannot be laid there.
        """
        instance = self.instance
        if instance.test_files:
            paths = [f"./{path}" for path in instance.test_paths]
            await self._done(Exec(argv=("rm", "-rf", "--", *paths), cwd=instance.repository, timeout=SECONDS))
        for target, folder in instance.test_files.items():
            if not Path(folder).is_dir():
                raise DataError(f"the tests of {instance.name!r} are not at {folder}")
            await self.sandbox.upload(Path(folder), target)
        if instance.test_patch:
            patch = Exec(
                argv=("git", "apply", "--whitespace=nowarn", "-"),
                cwd=instance.repository,
                stdin=instance.test_patch.encode(),
                timeout=SECONDS,
            )
            await self._done(patch)
        self.before = await self._listed()

    async def _listed(self) -> dict[str, bool]:
        printed = await self._done(_python(_LIST, self.instance.repository))
        names = (printed.stdout.head + printed.stdout.tail).split(b"\0")
        return {name[1:].decode(errors="surrogateescape"): name[:1] == b"l" for name in names if name}

    async def test_sources(self) -> dict[str, bytes]:
        """The files that hold required tests, relative to the repository.

        Raises:
            DataError: one is not there.
        """
        required = (*self.instance.fail_to_pass, *self.instance.pass_to_pass)
        found = {}
        for path in sorted({id.partition("::")[0] for id in required}):
            try:
                found[path] = await self.sandbox.read_file(f"{self.instance.repository}/{path}", LARGEST_TEST)
            except SandboxPathError as error:
                raise DataError(f"the tests of {self.instance.name!r} lack {path}: {error}") from error
        return found

    def roots(self) -> frozenset[str]:
        """What `refusal` calls `before`."""
        return import_roots(iter(self.before))

    async def lay_decoys(self, tests: Round) -> None:
        """Put the decoys of a round among the tests: before the agent's files, which may fill the disk.

        Raises:
            SandboxError: they cannot be laid there.
        """
        for path, content in tests.sources.items():
            await self.sandbox.write_file(f"{self.instance.repository}/{path}", content)

    async def lay_submission(self, submission: Submission) -> None:
        """Make the code that of the agent: its files laid, those that it deleted deleted.

        Raises:
            Refused: they do not fit into the repository.
            SandboxError: they cannot be laid there.
        """
        gone = "\0".join(self._gone(submission)).encode(errors="surrogateescape")
        await self._done(_python(_DELETE, self.instance.repository, gone))
        if not submission.paths:
            return
        try:
            await self.sandbox.upload(submission.folder, self.instance.repository)
        except SandboxPathError as error:
            raise Refused(f"the files do not fit into the repository: {error}") from error

    def _gone(self, submission: Submission) -> Iterator[str]:
        """Of the task's files, those that the agent deleted or put something else in the place of."""
        above = {str(parent) for path in submission.paths for parent in PurePosixPath(path).parents}
        refused = partial(refusal, tests=tests_of(self.instance), before=self.roots())
        for path, link in self.before.items():
            if path in submission.paths:
                replaced = link
            elif link:  # links are not taken, so nobody can tell whether one was deleted
                replaced = path in above
            else:
                replaced = not refused(path)
            if replaced:
                yield path

    async def examine(self) -> Report:
        """Run the tests that lie there.

        Raises:
            DataError: the task's command is not pytest's.
            SandboxDaemonError: the engine is gone.
        """
        python, request = self._request(secrets.token_hex(16))
        command = Exec(
            argv=(*python, "-s", "-B", "-c", EXAMINER),
            cwd="/",
            env={"PYTHONPATH": "", "PYTHONNOUSERSITE": "1", "PYTHONSTARTUP": "", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=msgspec.json.encode(request),
            timeout=self.instance.test_seconds,
            output=MOST_BYTES,
        )
        try:
            return read_report(await self.sandbox.exec(command), request["nonce"])
        except SandboxDaemonError:
            raise
        except SandboxError as error:
            return Report({}, {}, False, f"the sandbox did not survive the tests: {error}")

    def _request(self, nonce: str) -> tuple[tuple[str, ...], Request]:
        """The interpreter with its options, and what the examiner is asked."""
        instance = self.instance
        python, arguments = pytest_command(instance)
        path = [entry for entry in instance.env.get("PYTHONPATH", "").split(":") if entry]
        sources = [entry for entry in path if PurePosixPath(entry).is_relative_to(instance.repository)]
        return python, Request(
            nonce=nonce,
            folder=instance.repository,
            sources=[*sources, instance.repository] if instance.repository not in sources else sources,
            tools=[entry for entry in path if entry not in sources],
            path=":".join(path),
            arguments=[*arguments, *_PLAIN],
        )

    async def _done(self, command: Exec) -> ExecResult:
        result = await self.sandbox.exec(command)
        if not result.ok or result.stdout.dropped:
            said = result.stderr.text.strip()[-300:] or f"{result.ending}, exit code {result.exit_code}"
            raise SandboxError(f"{self.instance.name!r} cannot be made ready for its tests: {said}")
        return result


def pytest_command(instance: Instance) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The interpreter with its options, and pytest's arguments.

    Raises:
        DataError: the task's command is not `PYTHON [OPTIONS] -m pytest [ARGUMENTS]`.
    """
    command = instance.test_command
    for index in range(1, len(command) - 1):
        if command[index : index + 2] == ("-m", "pytest"):
            return command[:index], command[index + 2 :]
    raise DataError(
        f"the tests of {instance.name!r} are run by {' '.join(command)[:200]!r}; they can be judged where that is "
        "python3 -m pytest and its arguments"
    )


def _python(source: str, cwd: str, stdin: bytes = b"") -> Exec:
    return Exec(argv=("python3", "-I", "-S", "-c", source), cwd=cwd, stdin=stdin, timeout=SECONDS, output=MOST_BYTES)
