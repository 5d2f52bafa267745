"""The real client of MCP environments: `python tool_player.py URL NAME ARGUMENTS` lists tools and calls one."""

import asyncio
import json
import sys

from openenv.core.mcp_client import MCPToolClient


async def main(url: str, name: str, arguments: str) -> None:
    async with MCPToolClient(base_url=url) as client:
        await client.reset(seed=1)
        tools = [tool.model_dump() for tool in await client.list_tools()]
        result = await client.call_tool(name, **json.loads(arguments))
    print(json.dumps({"tools": tools, "result": result}))


asyncio.run(main(*sys.argv[1:]))
