"""Serve sandboxes to programs on this or other machines, over HTTP and WebSocket."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from palaestra.cli.parser import Parser, non_negative, positive, seconds
from palaestra.cli.stopping import stopping
from palaestra.errors import ConfigError

if TYPE_CHECKING:
    from palaestra.sandboxes.remote.admission import Allowed
    from palaestra.sandboxes.remote.server import SandboxServer

EXAMPLES = """  palaestra sandboxes serve
  palaestra sandboxes serve --backend bubblewrap --port 9000 --max-sandboxes 16
  palaestra sandboxes serve --image 'swe-*' --max-memory 4096 --max-cpus 2
  palaestra sandboxes serve --host 0.0.0.0 --token-file ~/.palaestra-token"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--backend", choices=["docker", "bubblewrap"], default="docker", help="what holds them (default: docker)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1); any but a loopback address needs a token",
    )
    parser.add_argument(
        "--port", type=non_negative, default=8643, metavar="N", help="0 takes a free one (default: 8643)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds what clients have to present (default: PALAESTRA_TOKEN)",
    )
    parser.add_argument(
        "--max-sandboxes", type=positive, default=64, metavar="N", help="at once, of all clients (default: 64)"
    )
    parser.add_argument("--max-clients", type=positive, default=64, metavar="N", help="at once (default: 64)")
    parser.add_argument(
        "--grace",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long the sandboxes of a client that has vanished wait for it (default: 30)",
    )
    _configure_limits(parser)


def _configure_limits(parser: Parser) -> None:
    parser.add_argument(
        "--image", action="append", metavar="PATTERN", help="image that clients may name, as in 'swe-*' (default: any)"
    )
    parser.add_argument(
        "--allow-network",
        action="store_true",
        help="let sandboxes have hosts that they reach, from this machine and with all that it reaches",
    )
    parser.add_argument("--max-memory", type=positive, metavar="MIB", help="of a sandbox (default: this machine's)")
    parser.add_argument("--max-cpus", type=positive, metavar="N", help="of a sandbox (default: this machine's)")
    parser.add_argument("--max-disk", type=positive, metavar="MIB", help="of a sandbox (default: 65536)")
    parser.add_argument(
        "--max-file", type=positive, default=64, metavar="MIB", help="read or written whole (default: 64; most: 192)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from palaestra.envs.deadline import run_to_the_end
    from palaestra.errors import require

    require("aiohttp", "remote")
    from palaestra.sandboxes.backends import open_backend
    from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings

    settings = ServerSettings(
        host=args.host,
        port=args.port,
        token=_token(args.token_file),
        clients=args.max_clients,
        grace_seconds=args.grace,
        allowed=_allowed(args),
    )
    run_to_the_end(_serve(SandboxServer(open_backend(args.backend), settings)), cancellable=True)
    return 0


def _token(file: Path | None) -> str | None:
    from palaestra.serving.door import TOKEN_VARIABLE

    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read the token in {file}: {error}") from error
    if not token:
        raise ConfigError(
            f"{file} holds no token; python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    return token


def _allowed(args: argparse.Namespace) -> Allowed:
    from msgspec.structs import replace

    from palaestra.sandboxes.remote.admission import CLIENT_BYTES, Allowed, machine
    from palaestra.sandboxes.spec import MIB

    limits = machine()
    return Allowed(
        sandboxes=args.max_sandboxes,
        limits=replace(
            limits,
            memory=args.max_memory * MIB if args.max_memory else limits.memory,
            cpus=float(args.max_cpus or limits.cpus),
            disk=args.max_disk * MIB if args.max_disk else limits.disk,
        ),
        images=tuple(args.image or ("*",)),
        network=args.allow_network,
        file_bytes=min(args.max_file * MIB, CLIENT_BYTES * 3 // 4),
    )


async def _serve(server: SandboxServer) -> None:
    stopped = asyncio.Event()
    with stopping(stopped):
        async with server:
            lock = "with a token" if server.settings.token else "without a token"
            print(f"serving {server.backend} sandboxes at {server.url} {lock}; Ctrl-C ends it", flush=True)
            await stopped.wait()
    print("stopped; every sandbox is closed", flush=True)
