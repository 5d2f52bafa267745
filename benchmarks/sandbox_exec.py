"""What a command costs in a running sandbox, against the Docker engine's own exec by its API in the same container.

Both run as the same user under the same limits, wait for the end, and learn the exit code and the output. Ours are
measured twice: `exec`, which starts a program, and a session, in whose shell the command runs. The ratio is that of
`true` in a session; `python3 -c 1` is mostly Python's own start.

Needs an engine at DOCKER_HOST and an image with python3.

    python benchmarks/sandbox_exec.py [--image palaestra-base:test] [--rounds 40]
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from _harness import conclude
from _sandboxes import needing_an_engine

from palaestra.errors import require
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import SandboxSpec

BAR = 10.0
COMMANDS = {"true": ("true",), "python": ("python3", "-c", "1")}


async def engines(container: Any, argv: tuple[str, ...]) -> None:
    """The engine's exec."""
    execution = await container.exec(list(argv), stdout=True, stderr=True, user="1000:1000", workdir="/work")
    async with execution.start(detach=False) as stream:
        while await stream.read_out() is not None:
            pass
    if (await execution.inspect())["ExitCode"] != 0:
        raise RuntimeError(f"{argv} failed")


async def in_turns(ways: Mapping[str, Callable[[], Awaitable[None]]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns; the first three rounds do not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 3):
        for name, way in ways.items():
            began = time.perf_counter()
            await way()
            found[name].append(1e3 * (time.perf_counter() - began))
    return {name: values[3:] for name, values in found.items()}


async def measured(image: str, rounds: int) -> dict[str, list[float]]:
    spec = SandboxSpec(image=image)
    async with (
        open_backend("docker") as backend,
        await backend.start(spec) as sandbox,  # which says so where there is no engine
        require("aiodocker", "docker").Docker() as docker,
    ):
        session, container = await sandbox.session(), docker.containers.container(sandbox.id)

        async def exec_(argv: tuple[str, ...]) -> None:
            if not (await sandbox.exec(Exec(argv=argv))).ok:
                raise RuntimeError(f"{argv} failed")

        async def run(argv: tuple[str, ...]) -> None:
            if not (await session.run(shlex.join(argv))).ok:
                raise RuntimeError(f"{argv} failed")

        ways: dict[str, Callable[[], Awaitable[None]]] = {}
        for name, argv in COMMANDS.items():
            ways[f"{name}_engine"] = lambda argv=argv: engines(container, argv)
            ways[f"{name}_exec"] = lambda argv=argv: exec_(argv)
            ways[f"{name}_session"] = lambda argv=argv: run(argv)
        return await in_turns(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="palaestra-base:test")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    found = {name: statistics.median(values) for name, values in asyncio.run(measured(args.image, args.rounds)).items()}
    print({name: f"{value:.2f} ms" for name, value in found.items()}, flush=True)
    conclude(
        "sandbox_exec",
        found["true_engine"] / found["true_session"],
        BAR,
        true_exec_ratio=found["true_engine"] / found["true_exec"],
        python_ratio=found["python_engine"] / found["python_session"],
        python_exec_ratio=found["python_engine"] / found["python_exec"],
        **{f"{name}_ms": value for name, value in found.items()},
    )


if __name__ == "__main__":
    with needing_an_engine("sandbox_exec"):
        main()
