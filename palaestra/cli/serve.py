"""Serve environments to programs on this or other machines, over HTTP and WebSocket."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING, get_args

from palaestra.cli.parser import Parser, non_negative, positive
from palaestra.cli.stopping import stopping
from palaestra.envs.isolation.placement import Kind

if TYPE_CHECKING:
    from palaestra.envs.isolation.server import EnvServer, ServerSettings

EXAMPLES = """  palaestra serve
  palaestra serve quiz/Capitals-v0 --import quiz.py --port 9000
  palaestra serve alfworld/Household-v0 --placement process --sessions 64
  palaestra serve alfworld/Household-v0 --host 0.0.0.0
  palaestra serve alfworld/Household-v0 --protocol openenv"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("envs", nargs="*", metavar="ID", help="what to serve (default: every environment there is)")
    parser.add_argument(
        "--protocol",
        choices=["palaestra", "openenv"],
        default="palaestra",
        help="what clients speak: Palaestra's own (default), or OpenEnv's, for trainers that speak it",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1); any but a loopback address needs a token in PALAESTRA_TOKEN",
    )
    parser.add_argument(
        "--port", type=non_negative, default=8642, metavar="N", help="0 takes a free one (default: 8642)"
    )
    parser.add_argument("--sessions", type=positive, default=256, metavar="N", help="most at once (default: 256)")
    parser.add_argument(
        "--idle", type=positive, default=1800, metavar="SECONDS", help="of a silent client (default: 1800)"
    )
    parser.add_argument(
        "--max-message", type=positive, default=8, metavar="MIB", help="largest of a client (default: 8; most: 64)"
    )
    parser.add_argument(
        "--placement",
        choices=[kind for kind in get_args(Kind) if kind in ("inline", "thread", "process")],
        default="inline",
        help="where environments run that are registered inline (default); process for those that may hang or crash",
    )
    parser.add_argument(
        "--allow-arguments", action="store_true", help="let clients choose the arguments of environments"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from palaestra.envs.deadline import run_to_the_end
    from palaestra.envs.isolation.protocol import MAX_MESSAGE_BYTES
    from palaestra.envs.isolation.server import ServerSettings
    from palaestra.serving.door import TOKEN_VARIABLE

    settings = ServerSettings(
        host=args.host,
        port=args.port,
        token=os.environ.get(TOKEN_VARIABLE, "").strip() or None,
        sessions=args.sessions,
        idle_seconds=args.idle,
        message_bytes=min(args.max_message * 2**20, MAX_MESSAGE_BYTES),
        placement=args.placement,
        allow_arguments=args.allow_arguments,
    )
    run_to_the_end(_serve(_server(args.protocol, args.envs, settings)), cancellable=True)
    return 0


def _server(protocol: str, ids: list[str], settings: ServerSettings) -> EnvServer:
    if protocol == "openenv":
        from palaestra.envs.openenv.server import OpenEnvServer

        return OpenEnvServer(ids, settings)
    from palaestra.envs.isolation.server import EnvServer

    return EnvServer(ids, settings)


async def _serve(server: EnvServer) -> None:
    stopped = asyncio.Event()
    with stopping(stopped):
        await _serve_until(stopped, server)
    print("stopped; every environment is closed", flush=True)


async def _serve_until(stopped: asyncio.Event, listening: EnvServer) -> None:
    async with listening as server:
        lock = "with a token" if server.settings.token else "without a token"
        count = len(server.specs)
        print(f"serving {count} environment{'s' * (count != 1)} at {server.url} {lock}; Ctrl-C ends it", flush=True)
        await stopped.wait()
