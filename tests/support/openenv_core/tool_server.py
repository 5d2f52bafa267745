"""A real openenv-core server of MCP tools: `python tool_server.py FOLDER` writes its port to FOLDER/port."""

import asyncio
import socket
import sys
from pathlib import Path
from uuid import uuid4

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server import Observation, State, create_app
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation


class Adder(MCPEnvironment):
    """Has one tool, which adds."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server = FastMCP("adder")

        @server.tool
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        super().__init__(server)
        self._state = State(episode_id=str(uuid4()))

    def reset(self, seed=None, episode_id=None, **kwargs):
        return Observation(done=False, metadata={})

    def _step_impl(self, action, timeout_s=None, **kwargs):
        return Observation(done=False, metadata={})

    @property
    def state(self):
        return self._state


async def main(folder: Path) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who reads the port may come before the server runs
    app = create_app(Adder, CallToolAction, CallToolObservation, max_concurrent_envs=8)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    unfinished = folder / "port.new"
    unfinished.write_text(str(listener.getsockname()[1]))
    unfinished.rename(folder / "port")
    await server.serve(sockets=[listener])


asyncio.run(main(Path(sys.argv[1])))
