"""Four siblings of a sandbox that holds 100 MB: `fork(4)` against four fresh starts that replay the 20 commands.

The commands are those of `swe_episodes.py`, which an agent gives that mends a bug: it looks around, runs tests, edits,
runs them again. One of them, `ls`, has made way for one that writes the 100 MB in 20 files, as an installation does.
None waits for anything: all 20 take as long as their programs compute, which is about a second of processor time. The
replay begins with the upload of the repository and runs in all four at once.

The clock stops when each sibling has listed its files. Afterwards they are compared with the parent's by their
checksums: all of them after a fork; but what git and Python write has the time in it, so is left out after a replay.

Needs an engine at DOCKER_HOST and an image with python3.

    python benchmarks/sandbox_fork.py [--image palaestra-base:test] [--rounds 5] [--siblings 4] [--megabytes 100]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import swe_episodes
from _harness import conclude
from _sandboxes import needing_an_engine

from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import SandboxSpec

BAR, SECONDS_BAR = 3.0, 1.5
FILES = 20
WRITTEN = ("*/.git/*", "*/__pycache__/*")
"""What no two replays write alike."""


def commands(megabytes: int) -> list[str]:
    """What the agent did."""
    script = (
        "import pathlib, random; place = pathlib.Path('/work/data'); place.mkdir(); "
        "[(place / f'{n}').write_bytes(random.Random(n).randbytes(1 << 16) * {blocks}) for n in range({files})]"
    )
    blocks = -(-megabytes * 10**6 // FILES // (1 << 16))
    make = script.replace("{blocks}", str(blocks)).replace("{files}", str(FILES))
    return [f'python3 -c "{make}"' if command == "ls" else command for command in swe_episodes.COMMANDS]


async def replay(sandbox: Sandbox, repository: Path, megabytes: int) -> None:
    await sandbox.upload(repository, "repository")
    session = await sandbox.session()
    await session.run("cd repository")
    for command in commands(megabytes):
        result = await session.run(command)
        if result.exit_code and "unittest" not in command:  # which fail until the bug is mended
            raise RuntimeError(f"{command}: {result}")
    await session.close()


async def listing(sandbox: Sandbox) -> str:
    return (await sandbox.exec(Exec(shell="find . -type f | sort"))).stdout.text


async def checksums(sandbox: Sandbox, without: tuple[str, ...]) -> str:
    left = " ".join(f"-not -path '{each}'" for each in without)
    return (await sandbox.exec(Exec(shell=f"find . -type f {left} | sort | xargs sha256sum"))).stdout.text


async def forked(parent: Sandbox, count: int) -> list[Sandbox]:
    return await parent.fork(count)


async def replayed(backend: Backend, spec: SandboxSpec, count: int, repository: Path, megabytes: int) -> list[Sandbox]:
    async def one() -> Sandbox:
        sandbox = await backend.start(spec)
        await replay(sandbox, repository, megabytes)
        return sandbox

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def seconds_of(
    making: Callable[[], Awaitable[list[Sandbox]]], parent: Sandbox, without: tuple[str, ...] = ()
) -> float:
    """From the call until each sibling has answered."""
    began = time.perf_counter()
    siblings = await making()
    await asyncio.gather(*map(listing, siblings))
    seconds = time.perf_counter() - began
    told = await asyncio.gather(*(checksums(each, without) for each in (parent, *siblings)))
    await asyncio.gather(*(each.close() for each in siblings))
    if len(set(told)) != 1:
        raise RuntimeError("a sibling does not have its parent's files")
    return seconds


async def measured(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    spec, forks, replays = SandboxSpec(image=args.image), [], []
    with TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        swe_episodes.make_repository(repository)
        async with open_backend("docker") as backend, await backend.start(spec) as parent:
            await replay(parent, repository, args.megabytes)
            for _ in range(args.rounds + 1):
                forks.append(await seconds_of(lambda: forked(parent, args.siblings), parent))
                again = replayed(backend, spec, args.siblings, repository, args.megabytes)
                replays.append(await seconds_of(lambda again=again: again, parent, WRITTEN))
    return forks[1:], replays[1:]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="palaestra-base:test")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--siblings", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=100)
    args = parser.parse_args()
    forks, replays = asyncio.run(measured(args))
    print(f"fork {statistics.median(forks):.2f} s, start and replay {statistics.median(replays):.2f} s", flush=True)
    seconds = statistics.median(forks)
    return conclude(
        "sandbox_fork",
        statistics.median(replay / fork for fork, replay in zip(forks, replays, strict=True)),
        BAR,
        also=seconds < SECONDS_BAR,
        fork_seconds=seconds,
        fork_seconds_bar=SECONDS_BAR,
        replay_seconds=statistics.median(replays),
    )


if __name__ == "__main__":
    with needing_an_engine("sandbox_fork"):
        raise SystemExit(not main())
