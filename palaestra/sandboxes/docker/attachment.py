"""The stream to a container's first process: its stdin, and its stdout and stderr in frames of the engine's."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import SupportsIndex

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from yarl import URL

_HEADER = struct.Struct(">BxxxL")
_STDERR = 2
_COMPLAINT = 4096
"""Bytes kept of the end of stderr: what an interpreter says before it dies."""
_LIMIT = 1 << 19
"""Bytes that may wait to be read before the engine is made to wait."""
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)


class Output(asyncio.StreamReader):
    """What comes of stdout; of stderr the end is kept aside."""

    def __init__(self) -> None:
        super().__init__(limit=_LIMIT)
        self.complaint = b""
        """The end of stderr."""
        self._header = b""
        self._kind, self._left = 0, 0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Take what the engine sent: any piece of its frames."""
        data, at = bytes(data), 0
        while at < len(data):
            if not self._left:
                at = self._begin(data, at)
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            if self._kind == _STDERR:
                self.complaint = (self.complaint + part)[-_COMPLAINT:]
            else:
                super().feed_data(part)

    def _begin(self, data: bytes, at: int) -> int:
        """Take a header, or what there is of it; gives where the rest of `data` begins."""
        missing = _HEADER.size - len(self._header)
        self._header += data[at : at + missing]
        if len(self._header) == _HEADER.size:
            self._kind, self._left = _HEADER.unpack(self._header)
            self._header = b""
        return min(len(data), at + missing)


class _Protocol(asyncio.StreamReaderProtocol):
    """Takes over a connection from aiohttp, which learns of its end."""

    def __init__(self, output: Output, former: asyncio.BaseProtocol) -> None:
        super().__init__(output)
        self._former = former

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._former.connection_lost(error)


class Attachment:
    """A connection to a container, made before its first process starts, so that nothing is missed."""

    def __init__(self, output: Output, writer: asyncio.StreamWriter, response: aiohttp.ClientResponse) -> None:
        self.output, self.writer = output, writer
        self._response = response

    @classmethod
    async def open(cls, docker: Docker, container: str) -> Attachment:
        """Attach to a container that was created and not started.

        Raises:
            DockerError: the engine refuses, or does not upgrade the connection.
            aiohttp.ClientError: the engine cannot be reached.
        """
        query = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
        url = URL(f"{docker.docker_host}/containers/{container}/attach").with_query(query)
        response = await docker.session.post(url, headers=_UPGRADE, timeout=_TIMEOUT, read_until_eof=False)
        connection = response.connection
        if response.status != 101 or connection is None or connection.transport is None:
            answer = await response.text()
            response.close()
            raise DockerError(response.status, f"cannot attach: {answer}")
        transport, former = connection.transport, connection.protocol
        assert isinstance(transport, asyncio.Transport)
        assert former is not None
        output = Output()
        protocol = _Protocol(output, former)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        writer = asyncio.StreamWriter(transport, protocol, output, asyncio.get_running_loop())
        return cls(output, writer, response)

    @property
    def complaint(self) -> str:
        """The last thing that the process wrote to stderr."""
        lines = self.output.complaint.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def close(self) -> None:
        """Let go. The process reads the end of its stdin. May be called more than once."""
        self.writer.close()
        self._response.close()
