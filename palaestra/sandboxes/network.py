"""The way out of a sandbox: its runner's proxy asks, and here it is decided and connected.

The sandbox itself has no network. What runs in it speaks to a proxy on its own loopback, which sends every connection
over the link; only hosts and ports that the spec names are connected to, by name.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from palaestra.errors import ConfigError, SandboxError
from palaestra.sandboxes.link import Exchange, Header, Link

_CONNECT = 20.0
"""Seconds for a connection to be made."""
_READ = 1 << 16


def check_network(allowed: tuple[str, ...]) -> frozenset[tuple[str, int]]:
    """Hosts and ports of a spec.

    Raises:
        ConfigError: one is not `name:port`.
    """
    found = set()
    for each in allowed:
        host, _, port = each.rpartition(":")
        if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"network names hosts as name:port, not {each!r}")
        found.add((host.strip("[]").lower(), int(port)))
    return frozenset(found)


class Network:
    """Connections of one sandbox."""

    def __init__(self, link: Link, allowed: tuple[str, ...]) -> None:
        self._link, self._allowed = link, check_network(allowed)
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_open = self._asked

    def _asked(self, header: Header) -> None:
        exchange = self._link.adopt(header["id"])
        task = asyncio.create_task(self._serve(exchange, str(header.get("host")).lower(), header.get("port")))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, exchange: Exchange, host: str, port: object) -> None:
        try:
            if not isinstance(port, int) or (host, port) not in self._allowed:
                return await self._refuse(exchange, f"{host}:{port} is not among the hosts that this sandbox may reach")
            try:
                async with asyncio.timeout(_CONNECT):
                    reader, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError) as error:
                return await self._refuse(exchange, f"{host}:{port} cannot be reached: {error or 'no answer'}")
            try:
                await self._link.send({"id": exchange.id, "op": "opened"})
                await _both_ways(exchange, reader, writer)
            finally:
                writer.close()
        except SandboxError:
            pass
        finally:
            self._link.forget(exchange)

    async def _refuse(self, exchange: Exchange, why: str) -> None:
        await self._link.send({"id": exchange.id, "op": "refuse", "text": why[:500]})


async def _both_ways(exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the sandbox's side is closed, which follows the end of the other."""
    inward = asyncio.create_task(_inward(exchange, reader))
    try:
        while True:
            header, payload = await exchange.receive()
            if header["kind"] == "closed":
                return
            with suppress(OSError):
                if header["kind"] == "end":
                    writer.write_eof()
                else:
                    writer.write(payload)
                    await writer.drain()
                    await exchange.acknowledge(payload)
    finally:
        inward.cancel()
        await asyncio.wait([inward])
        if not inward.cancelled():
            inward.exception()


async def _inward(exchange: Exchange, reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while data := await reader.read(_READ):
            await exchange.send({}, data)
    await exchange.end()
