"""The real openenv-core client: `python player.py URL` plays there as stdin says, and prints what it got as JSON.

stdin: {"reset": {...}, "actions": [{...}, ...]}
"""

import asyncio
import json
import sys

from openenv.core.generic_client import GenericEnvClient


async def main(url: str) -> None:
    order = json.load(sys.stdin)
    got = []
    async with GenericEnvClient(base_url=url) as client:
        first = await client.reset(**order["reset"])
        got.append([first.observation, first.reward, first.done])
        for action in order["actions"]:
            step = await client.step(action)
            got.append([step.observation, step.reward, step.done])
        state = await client.state()
    print(json.dumps({"got": got, "state": state}))


asyncio.run(main(sys.argv[1]))
