"""64 episodes of 20 commands each in sandboxes, against the same commands in plain subprocesses.

An episode is what an agent does to a bug: it gets a repository of its own, looks around, runs tests, edits, runs them
again. Ours has a sandbox for each, out of a pool that opens and closes inside the measured time, and a session whose
shell runs the commands; the baseline copies the repository to a folder in memory (as sandboxes have theirs in memory)
and starts `bash -c` for each command, in a session of its own, as each sandbox has one (where others keep the machine
busy, its processors are shared out by session). As many run at once. A failure is an exception, an exit code or an
output that differs from the baseline's; a leak is anything that this process still holds afterwards, as `palaestra
sandboxes ps` sees it, or a process of its own.

Takes the Docker engine at DOCKER_HOST and an image with python3 and git, else bubblewrap.

    python benchmarks/swe_episodes.py [--backend docker] [--image palaestra-base:test] [--episodes 64] [--at-once 8]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _harness import conclude

from palaestra.envs.isolation.proc import children, descendants
from palaestra.errors import MissingExtraError, SandboxDaemonError, SandboxImageError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.reaper import survey
from palaestra.sandboxes.spec import SandboxSpec

BAR = 1.5
_MEMORY = "/dev/shm"
_LONG_AGO = 1_600_000_000
COMMANDS = (
    "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm base",
    "ls",
    "find . -name '*.py' -not -path './.git/*' | sort | head -50",
    "cat README.md",
    "grep -rn 'def total' shop | wc -l",
    "python3 -m unittest -q tests.test_07",
    "sed -n 1,60p shop/part_07.py",
    "grep -n 'sum - ' shop/part_07.py",
    "sed -i 's/sum - /sum + /' shop/part_07.py",
    "git diff",
    "python3 -m unittest -q tests.test_07",
    "python3 -c 'from shop.part_07 import total; print(total(range(10)))'",
    "printf 'def extra():\\n    return 1\\n' > shop/extra.py",
    "python3 -m compileall -q shop",
    "python3 -m unittest discover -q -s tests -t .",
    "git status --short | sort",
    "wc -l shop/*.py | tail -1",
    "rm shop/extra.py",
    "python3 -m unittest discover -q -s tests -t .",
    "git diff | head -50",
)
_README = "# shop\n\nAdds things up. The tests are in `tests`.\n"
_PART = """\"\"\"Part {number} of the shop.\"\"\"


def total(numbers):
    sum = 0
    for number in numbers:
        sum = sum {sign} number
    return sum


def digits(number):
    return [int(each) for each in str(number)]
"""
_TEST = """import unittest

from shop.part_{number:02} import digits, total


class Part(unittest.TestCase):
    def test_total(self):
        for last in range(300):
            self.assertEqual(total(range(last)), last * (last - 1) // 2)

    def test_digits(self):
        for number in range(3000):
            self.assertEqual(sum(digits(number)), sum(map(int, str(number))))
"""
Results = list[tuple[int, str]]
"""Exit code and stdout of each command."""


@dataclass
class Played:
    """What came of some episodes."""

    seconds: float
    """On the clock."""
    results: list[Results | BaseException]


@dataclass
class Plain:
    """The baseline."""

    repository: Path
    folder: Path
    path: str
    seconds: float = 0.0
    results: list[Results | BaseException] = field(default_factory=list)

    async def play(self, count: int, at_once: int) -> None:
        """Play so many episodes more."""
        played = await crowd(self._episode, count, at_once)
        self.seconds += played.seconds
        self.results += played.results

    async def _episode(self) -> Results:
        place = Path(tempfile.mkdtemp(dir=self.folder))
        await asyncio.to_thread(shutil.copytree, self.repository, place, dirs_exist_ok=True)
        found = [await self._command(command, place) for command in COMMANDS]
        await asyncio.to_thread(shutil.rmtree, place)
        return found

    async def _command(self, command: str, place: Path) -> tuple[int, str]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command),
            cwd=place,
            env={"PATH": self.path, "HOME": str(place), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


def make_repository(folder: Path) -> None:
    """A package of 30 modules with their tests, and a bug in the seventh."""
    for name in ("shop", "tests"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "README.md").write_text(_README)
    for number in range(30):
        part = _PART.format(number=number, sign="-" if number == 7 else "+")
        (folder / "shop" / f"part_{number:02}.py").write_text(part)
        (folder / "tests" / f"test_{number:02}.py").write_text(_TEST.format(number=number))
    for each in folder.rglob("*.py"):  # or what is edited within a second looks compiled already: it has the same size
        os.utime(each, (_LONG_AGO, _LONG_AGO))


async def crowd(episode: Callable[[], Awaitable[Results]], count: int, at_once: int) -> Played:
    """Play `count` episodes, so many at once."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> Results:
        async with gate:
            return await episode()

    began = time.perf_counter()
    results = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    return Played(time.perf_counter() - began, results)


async def in_sandboxes(name: str, spec: SandboxSpec, repository: Path, count: int, at_once: int) -> Played:
    """The episodes in sandboxes; the time includes the pool's opening and closing."""
    began = time.perf_counter()
    async with open_backend(name) as backend, Pool(backend, spec, size=min(4, at_once)) as pool:

        async def episode() -> Results:
            async with pool.take() as sandbox:
                await sandbox.upload(repository, "repository")
                session = await sandbox.session()
                await session.run("cd repository")
                done = [await session.run(command) for command in COMMANDS]
                return [(each.exit_code, each.stdout.text) for each in done]

        played = await crowd(episode, count, at_once)
    return Played(time.perf_counter() - began, played.results)


async def leaks() -> list[str]:
    """What this process still holds."""
    things = [thing for thing in (await survey()).things if thing.holder and thing.holder.pid == os.getpid()]
    return [f"{thing.kind} {thing.name}" for thing in things] + [
        f"process {pid}" for pid in descendants(os.getpid(), children())
    ]


async def usable(name: str, image: str) -> str:
    """The back end and what it runs: docker where it works, else bubblewrap; `name` if it was asked for."""
    if name:
        return name
    try:
        async with open_backend("docker") as backend, await backend.start(SandboxSpec(image=image)):
            return "docker"
    except (MissingExtraError, SandboxDaemonError, SandboxImageError) as error:
        print(f"bubblewrap instead of docker: {error}", flush=True)
        return "bubblewrap"


async def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Both contenders: half of the baseline's episodes before ours, half after."""
    name = await usable(args.backend, args.image)
    spec = SandboxSpec(image=args.image if name == "docker" else "")
    beside = "" if name == "docker" and Path("/usr/bin/python3").exists() else f"{Path(sys.executable).parent}:"
    with tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder:
        repository = Path(folder) / "repository"
        make_repository(repository)
        plain = Plain(repository, Path(folder), f"{beside}/usr/bin:/bin")
        await plain.play(args.episodes // 2, args.at_once)
        ours = await in_sandboxes(name, spec, repository, args.episodes, args.at_once)
        await plain.play(args.episodes - args.episodes // 2, args.at_once)
    expected = plain.results[0]
    for result in [*plain.results, *ours.results]:
        if result != expected:
            print("differs:", _difference(expected, result), flush=True)
    return {
        "ratio": ours.seconds / plain.seconds,
        "backend": name,
        "seconds": ours.seconds,
        "plain_seconds": plain.seconds,
        "failures": sum(result != expected for result in ours.results),
        "plain_failures": sum(result != expected for result in plain.results),
        "leaks": await leaks(),
    }


def _difference(expected: Results | BaseException, result: Results | BaseException) -> str:
    if isinstance(expected, BaseException) or isinstance(result, BaseException):
        return repr(result)
    return str([(c, a, b) for c, a, b in zip(COMMANDS, expected, result, strict=True) if a != b][:1])


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["docker", "bubblewrap"], default="")
    parser.add_argument("--image", default="palaestra-base:test")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=8)
    args = parser.parse_args()
    found = asyncio.run(measured(args))
    ratio, left = found.pop("ratio"), found.pop("leaks")
    print(*left, sep="\n", end="\n" if left else "", flush=True)
    sound = not left and not found["failures"] and not found["plain_failures"]
    return conclude(
        "swe_episodes",
        ratio,
        BAR,
        at_most=True,
        also=sound,
        episodes=args.episodes,
        commands=len(COMMANDS),
        at_once=args.at_once,
        leaks=len(left),
        **found,
    )


if __name__ == "__main__":
    raise SystemExit(not main())
