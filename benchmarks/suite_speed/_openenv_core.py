"""Run by the interpreter with openenv-core: `URL SECONDS CLIENTS...` steps there with its clients, prints steps/s."""

import asyncio
import sys
import time

from openenv.core.generic_client import GenericEnvClient


async def play(url: str, end: float) -> int:
    async with GenericEnvClient(base_url=url) as client:
        await client.reset(seed=1)
        steps = 0
        while time.monotonic() < end:
            await client.step({"message": "on"})
            steps += 1
    return steps


async def measured(url: str, seconds: float, clients: int) -> float:
    began = time.monotonic()
    steps = await asyncio.gather(*(play(url, began + seconds) for _ in range(clients)))
    return sum(steps) / (time.monotonic() - began)


for clients in sys.argv[3:]:
    print(asyncio.run(measured(sys.argv[1], float(sys.argv[2]), int(clients))))
