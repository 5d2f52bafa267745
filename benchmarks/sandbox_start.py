"""How soon a sandbox is there: taken from a warm pool, against a cold start on the same Docker engine.

Taking ends when the sandbox has answered a request. Each round takes one from a full pool, and starts one cold in two
ways: by the back end, ready to run commands, and as a plain container by the engine's API (create and start, nothing
else). The ratio is of the quicker cold way; hand-outs while the pool is refilling are told apart.

Needs an engine at DOCKER_HOST and an image with python3.

    python benchmarks/sandbox_start.py [--image palaestra-base:test] [--rounds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable
from typing import Any

from _harness import conclude
from _sandboxes import needing_an_engine

from palaestra.errors import require
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.core import Backend
from palaestra.sandboxes.pool import Pool
from palaestra.sandboxes.spec import SandboxSpec

BAR, MILLISECONDS_BAR = 10.0, 20.0
BURST = 4
"""Sandboxes taken one after the other while the pool refills."""


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    began = time.perf_counter()
    result = await work
    return 1e3 * (time.perf_counter() - began), result


async def plain(docker: Any, image: str) -> Any:
    """A container without anything of ours."""
    config = {"Image": image, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none", "AutoRemove": True}}
    container = await docker.containers.create(config)
    await container.start()
    return container


async def rounds_of(backend: Backend, docker: Any, spec: SandboxSpec, count: int) -> dict[str, list[float]]:
    """Milliseconds by the way of starting; the first round does not count."""
    found: dict[str, list[float]] = {"warm": [], "busy": [], "cold": [], "plain": []}
    async with Pool(backend, spec, size=BURST) as pool:
        for _ in range(count + 1):
            await pool.fill()
            warm, taken = await timed(pool.take())
            burst = [await timed(pool.take()) for _ in range(BURST - 1)]
            await asyncio.gather(taken.close(), *(each.close() for _, each in burst))
            await pool.fill()
            cold, started = await timed(backend.start(spec))
            await started.close()
            bare, container = await timed(plain(docker, spec.image))
            await container.delete(force=True, v=True)
            for name, value in (("warm", warm), ("cold", cold), ("plain", bare)):
                found[name].append(value)
            found["busy"] += [each for each, _ in burst]
    return {name: values[BURST - 1 if name == "busy" else 1 :] for name, values in found.items()}


async def measured(image: str, count: int) -> dict[str, list[float]]:
    spec = SandboxSpec(image=image)
    async with open_backend("docker") as backend:
        await (await backend.start(spec)).close()  # which says so where there is no engine; the client below does not
        async with require("aiodocker", "docker").Docker() as docker:
            return await rounds_of(backend, docker, spec, count)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="palaestra-base:test")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    found = asyncio.run(measured(args.image, args.rounds))
    medians = {name: statistics.median(values) for name, values in found.items()}
    print({name: f"{value:.1f} ms" for name, value in medians.items()}, flush=True)
    return conclude(
        "sandbox_start",
        min(medians["cold"], medians["plain"]) / medians["warm"],
        BAR,
        also=medians["warm"] < MILLISECONDS_BAR,
        warm_ms=medians["warm"],
        warm_ms_bar=MILLISECONDS_BAR,
        warm_worst_ms=max(found["warm"]),
        warm_while_refilling_ms=medians["busy"],
        cold_ms=medians["cold"],
        plain_container_ms=medians["plain"],
    )


if __name__ == "__main__":
    with needing_an_engine("sandbox_start"):
        raise SystemExit(not main())
