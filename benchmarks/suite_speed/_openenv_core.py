"""Run by the interpreter with openenv-core: `URL CLIENTS SECONDS` steps there with its own clients, prints steps/s."""

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


async def main(url: str, clients: str, seconds: str) -> None:
    began = time.monotonic()
    steps = await asyncio.gather(*(play(url, began + float(seconds)) for _ in range(int(clients))))
    print(sum(steps) / (time.monotonic() - began))


asyncio.run(main(*sys.argv[1:]))
