"""Four siblings of a sandbox that holds 100 MB: `fork(4)` against four fresh starts that replay the 20 commands.

The clock stops when each sibling has listed its files; afterwards their checksums are compared with the parent's. The
replay runs in all four at once. Its commands start a program each and write a file, and compute next to nothing: with
commands that think longer the replay takes longer, and the fork does not.

Needs an engine at DOCKER_HOST and an image with python3.

    python benchmarks/sandbox_fork.py [--image palaestra-base:test] [--rounds 5] [--siblings 4] [--megabytes 100]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from _harness import conclude
from _sandboxes import needing_an_engine

from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import SandboxSpec

BAR, SECONDS_BAR = 3.0, 1.5
COMMANDS = 20


def commands(megabytes: int) -> list[str]:
    """They write files in folders, each by a program of its own, and the same ones each time."""
    size = megabytes * 10**6 // COMMANDS
    script = (
        "import random, sys; sys.stdout.buffer.write(random.Random({n}).randbytes(1 << 16) * ({size} // 65536 + 1))"
    )
    return [
        f"mkdir -p d{n % 4} && python3 -c '{script.format(n=n, size=size)}' > d{n % 4}/f{n}" for n in range(COMMANDS)
    ]


async def replay(sandbox: Sandbox, megabytes: int) -> None:
    for command in commands(megabytes):
        if not (result := await sandbox.exec(Exec(shell=command))).ok:
            raise RuntimeError(f"{command}: {result}")


async def listing(sandbox: Sandbox) -> str:
    return (await sandbox.exec(Exec(shell="find . -type f | sort"))).stdout.text


async def checksums(sandbox: Sandbox) -> str:
    return (await sandbox.exec(Exec(shell="find . -type f | sort | xargs sha256sum"))).stdout.text


async def forked(parent: Sandbox, count: int) -> list[Sandbox]:
    return await parent.fork(count)


async def replayed(backend: Backend, spec: SandboxSpec, count: int, megabytes: int) -> list[Sandbox]:
    async def one() -> Sandbox:
        sandbox = await backend.start(spec)
        await replay(sandbox, megabytes)
        return sandbox

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def seconds_of(making: Callable[[], Awaitable[list[Sandbox]]], expected: str) -> float:
    """From the call until each sibling has answered."""
    began = time.perf_counter()
    siblings = await making()
    await asyncio.gather(*map(listing, siblings))
    seconds = time.perf_counter() - began
    told = await asyncio.gather(*map(checksums, siblings))
    await asyncio.gather(*(each.close() for each in siblings))
    if set(told) != {expected}:
        raise RuntimeError("a sibling does not have its parent's files")
    return seconds


async def measured(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    spec, forks, replays = SandboxSpec(image=args.image), [], []
    async with open_backend("docker") as backend, await backend.start(spec) as parent:
        await replay(parent, args.megabytes)
        expected = await checksums(parent)
        for _ in range(args.rounds + 1):
            forks.append(await seconds_of(lambda: forked(parent, args.siblings), expected))
            again = replayed(backend, spec, args.siblings, args.megabytes)
            replays.append(await seconds_of(lambda again=again: again, expected))
    return forks[1:], replays[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="palaestra-base:test")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--siblings", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=100)
    args = parser.parse_args()
    forks, replays = asyncio.run(measured(args))
    print(f"fork {statistics.median(forks):.2f} s, start and replay {statistics.median(replays):.2f} s", flush=True)
    conclude(
        "sandbox_fork",
        statistics.median(replay / fork for fork, replay in zip(forks, replays, strict=True)),
        BAR,
        fork_seconds=statistics.median(forks),
        replay_seconds=statistics.median(replays),
        seconds_pass=statistics.median(forks) < SECONDS_BAR,
    )


if __name__ == "__main__":
    with needing_an_engine("sandbox_fork"):
        main()
