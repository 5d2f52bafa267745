"""A sandbox whose runner is at the other end of a link: all that a back end has not to do itself."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from palaestra.errors import SandboxError, SandboxPathError
from palaestra.sandboxes.boot import runner_program
from palaestra.sandboxes.commands import Chunk, Exec, ExecResult, Output
from palaestra.sandboxes.core import OnOutput, Sandbox, Session
from palaestra.sandboxes.link import Exchange, Header, Link
from palaestra.sandboxes.network import Network
from palaestra.sandboxes.runner.frames import CHUNK
from palaestra.sandboxes.spec import SandboxSpec
from palaestra.sandboxes.transfer import Files, entries

_GRACE = 30.0
"""Seconds beyond a command's time-out in which its runner has to answer."""
_ENDINGS = ("exit", "signal", "timeout", "flood", "memory")


class AttachedSandbox(Sandbox):
    """Commands, sessions and files over a link. Back ends add `snapshot`, `fork` and `close`."""

    def __init__(self, id: str, spec: SandboxSpec, link: Link) -> None:
        self.id, self.spec, self.link = id, spec, link
        self._network: Network | None = None

    async def configure(self, rlimits: dict[str, int] | None = None, memory: int = 0) -> None:
        """Tell the runner what its sandbox is. Once, before all else.

        Args:
            rlimits: by the names of `resource` without `RLIMIT_`, for the runner and all that it starts.
            memory: bytes of address space of each process, where nothing else limits memory.

        Raises:
            SandboxPathError: the work folder is not there, or cannot be written to.
            SandboxError: there is no runner.
        """
        await self.link.begin(runner_program())
        await self.link.hello()
        spec = self.spec
        if spec.network:
            self._network = Network(self.link, spec.network)
        await self.link.ask(
            {
                "op": "configure",
                "workdir": spec.workdir,
                "env": spec.env,
                "rlimits": rlimits or {},
                "memory": memory,
                "network": bool(spec.network),
                "lifetime": spec.limits.lifetime,
            }
        )

    async def renew(self) -> None:
        """Begin its lifetime anew."""
        await self.link.ask({"op": "renew", "lifetime": self.spec.limits.lifetime})

    async def ping(self) -> None:
        """Whether it is alive.

        Raises:
            SandboxError: it is not.
        """
        await self.link.ask({"op": "ping"})

    async def exec(self, command: Exec, on_output: OnOutput | None = None) -> ExecResult:
        """See `Sandbox`."""
        if bool(command.argv) == bool(command.shell):
            raise SandboxPathError("a command has one of argv and shell")
        header: Header = {
            "op": "exec",
            "stream": on_output is not None,
            **self._limits(command.timeout, command.output),
        }
        header |= {"argv": command.argv} if command.argv else {"shell": command.shell}
        header |= {"cwd": command.cwd, "env": command.env}
        first, rest = command.stdin[:CHUNK], command.stdin[CHUNK:]
        if rest:
            header["stdin"] = True
        return await self._run(header, first, rest, on_output)

    def _limits(self, timeout: float | None, output: int | None) -> Header:
        limits = self.spec.limits
        return {
            "timeout": limits.seconds if timeout is None else timeout,
            "output": limits.output if output is None else output,
            "flood": limits.flood,
        }

    async def _run(
        self, header: Header, payload: bytes, rest: bytes = b"", on_output: OnOutput | None = None
    ) -> ExecResult:
        exchange = self.link.exchange(2 * int(header["output"]))
        feeding: asyncio.Task[None] | None = None
        finished = False
        try:
            await self._send(exchange, header, payload)
            if rest:
                feeding = asyncio.create_task(self._feed(exchange, rest))
            result = await self._result(exchange, on_output, header["timeout"])
            finished = True
            return result
        except SandboxPathError:
            finished = True
            raise
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            if finished:
                self.link.forget(exchange)
            else:
                await asyncio.shield(self.link.cancel(exchange))

    async def _send(self, exchange: Exchange, header: Header, payload: bytes = b"") -> None:
        try:
            await self.link.send({**header, "id": exchange.id}, payload)
        except (TypeError, ValueError) as error:
            raise SandboxPathError(f"a command that cannot be sent: {error}") from error

    async def _feed(self, exchange: Exchange, rest: bytes) -> None:
        for begin in range(0, len(rest), CHUNK):
            await exchange.send({}, rest[begin : begin + CHUNK])
        await exchange.end()

    async def _result(self, exchange: Exchange, on_output: OnOutput | None, timeout: float) -> ExecResult:
        kept = bytearray()
        while True:
            try:
                async with asyncio.timeout(timeout + _GRACE):
                    header, payload = await exchange.receive()
            except TimeoutError:
                raise SandboxError(f"the sandbox does not answer {_GRACE:g} s after a command's time-out") from None
            if header["kind"] == "data":
                await self._tell(on_output, header, payload)
                await exchange.acknowledge(payload)
            else:
                kept += payload
            if header["kind"] == "done":
                return _result(header, bytes(kept))

    @staticmethod
    async def _tell(on_output: OnOutput | None, header: Header, payload: bytes) -> None:
        if on_output is not None:
            waiting = on_output(Chunk(stream="stderr" if header.get("stream") == "stderr" else "stdout", data=payload))
            if inspect.isawaitable(waiting):
                await waiting

    async def session(self) -> Session:
        """See `Sandbox`."""
        exchange = self.link.exchange()
        try:
            await self.link.send({"op": "shell", "id": exchange.id})
            await exchange.receive()
        finally:
            self.link.forget(exchange)
        return AttachedSession(self, exchange.id)

    async def read_file(self, path: str, limit: int = 16 * 1024 * 1024) -> bytes:
        """See `Sandbox`."""
        content = bytearray()
        async with self._request({"op": "read", "path": path, "limit": limit}) as exchange:
            while True:
                header, payload = await exchange.receive()
                content += payload
                if header["kind"] == "done":
                    return bytes(content)
                if len(content) > limit:
                    raise SandboxPathError(f"{path}: holds more than {limit} bytes")
                await exchange.acknowledge(payload)

    async def write_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """See `Sandbox`."""
        whole = len(content) <= CHUNK
        header = {"op": "write", "path": path, "mode": mode, "whole": whole}
        async with self._request(header, content[:CHUNK]) as exchange:
            if not whole:
                await self._feed(exchange, content[CHUNK:])
            await self._done(exchange)

    async def upload(self, source: Path, target: str) -> None:
        """See `Sandbox`."""
        async with self._request({"op": "put", "path": target}) as exchange:
            for entry, payload in entries(source):
                await exchange.send({"e": entry}, payload)
            await exchange.end()
            await self._done(exchange)

    async def download(self, source: str, target: Path, limit: int = 1024 * 1024 * 1024) -> None:
        """See `Sandbox`."""
        files = Files(target, limit)
        try:
            async with self._request({"op": "get", "path": source, "limit": limit}) as exchange:
                while True:
                    header, payload = await exchange.receive()
                    if header["kind"] == "done":
                        break
                    files.take(header.get("e"), payload)
                    await exchange.acknowledge(payload)
            files.finish()
        except BaseException:
            files.discard()
            raise

    @asynccontextmanager
    async def held_still(self) -> AsyncIterator[None]:
        """Meanwhile nothing runs in it but its runner."""
        await self.link.ask({"op": "hold"})
        try:
            yield
        finally:
            with suppress(SandboxError):
                await asyncio.shield(self.link.ask({"op": "release"}))

    async def pack(self, source: str) -> None:
        """Put a folder's files on the runner's shelf, with everything that runs held still."""
        await self.link.ask({"op": "get", "path": source, "limit": 1 << 62, "still": True, "shelf": True})

    async def unpack(self, target: str) -> None:
        """Put files there from the shelf that the runner was given."""
        await self.link.ask({"op": "put", "path": target, "shelf": True})

    def _request(self, header: Header, payload: bytes = b"") -> _Request:
        return _Request(self.link, header, payload)

    @staticmethod
    async def _done(exchange: Exchange) -> None:
        while (await exchange.receive())[0]["kind"] != "done":
            pass


class _Request:
    """An exchange that is cancelled where it is left early."""

    def __init__(self, link: Link, header: Header, payload: bytes) -> None:
        self._link, self._header, self._payload = link, header, payload
        self._exchange = link.exchange()

    async def __aenter__(self) -> Exchange:
        try:
            await self._link.send({**self._header, "id": self._exchange.id}, self._payload)
        except BaseException:
            self._link.forget(self._exchange)
            raise
        return self._exchange

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._link.forget(self._exchange)
        else:
            await asyncio.shield(self._link.cancel(self._exchange))


class AttachedSession(Session):
    """A shell in an attached sandbox."""

    def __init__(self, sandbox: AttachedSandbox, id: int) -> None:
        self._sandbox, self._id = sandbox, id
        self._turn = asyncio.Lock()
        self._closed = False

    async def run(self, script: str, timeout: float | None = None) -> ExecResult:
        """See `Session`."""
        async with self._turn:
            if self._closed:
                raise SandboxError("the session is closed")
            header: Header = {"op": "run", "shell": self._id, **self._sandbox._limits(timeout, None)}
            try:
                text = script.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise SandboxPathError(f"a script that is no text: {error}") from error
            return await self._sandbox._run(header, text)

    async def close(self) -> None:
        """See `Session`."""
        if not self._closed:
            self._closed = True
            with suppress(SandboxError):
                await self._sandbox.link.ask({"op": "leave", "shell": self._id})


def _result(header: dict[str, Any], kept: bytes) -> ExecResult:
    """What a runner says came of a command.

    Raises:
        SandboxError: it says nonsense.
    """
    try:
        outputs, at = [], 0
        for head, tail, dropped in header["parts"]:
            outputs.append(Output(kept[at : at + int(head)], kept[at + head : at + head + int(tail)], int(dropped)))
            at += head + tail
        stdout, stderr = outputs
        if header["ending"] not in _ENDINGS:
            raise ValueError(header["ending"])
        return ExecResult(int(header["code"]), header["ending"], stdout, stderr, float(header["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"the sandbox is lost: its runner says {error!r} of a command") from error
