"""Environments in worker processes: the channel to one, and the pool that they come from and go back to."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence

from palaestra.envs.isolation.channel import CannotFork, Channel
from palaestra.envs.isolation.pool import POOL, Wanted, Worker
from palaestra.envs.isolation.protocol import Call, Result, Value
from palaestra.envs.isolation.wire import (
    MOST_SOCKETS,
    Fork,
    Forked,
    Order,
    Refused,
    Release,
    Reply,
    decode_reply,
    frame,
    send_sockets,
)
from palaestra.envs.isolation.zygote import socket_pair
from palaestra.envs.registry import EnvSpec
from palaestra.errors import DataError, EnvError, WorkerError


async def open_process(spec: EnvSpec, *, python: str = sys.executable) -> ProcessChannel:
    """A channel to a worker process for `spec`: one that is idle, or a new one. `python` is its interpreter.

    Raises:
        WorkerError: there can be no worker process.
    """
    where = spec.placement
    wanted = Wanted(
        python, tuple(sorted(where.environ.items())), where.memory_bytes, spec.entry_point, where.reuse, where.warm
    )
    return ProcessChannel(POOL.take(wanted))


class ProcessChannel:
    """A channel to a worker process, for the event loop that it was made in."""

    def __init__(self, worker: Worker) -> None:
        self._worker: Worker | None = worker
        self._socket = worker.socket
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[bytes] | None = None
        self._fault: Exception | None = None
        self._busy = False
        self._loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        """The process id of the worker; waits until it runs."""
        return self._living.process.pid

    async def call(self, call: Call) -> Result:
        """Have it done by the worker; see `Channel.call`."""
        reply = await self._exchange(call)
        if isinstance(reply, Refused | Forked):
            raise self._broken(f"a worker answered a call by {type(reply).__name__}")
        return reply

    async def fork(self, n: int) -> list[Channel]:
        """Channels to `n` copies of the worker; see `Channel.fork`."""
        channels: list[Channel] = []
        try:
            while len(channels) < n:
                channels += await self._fork_some(min(n - len(channels), MOST_SOCKETS))
        except BaseException:
            for channel in channels:
                channel.kill()
            raise
        return channels

    async def _fork_some(self, n: int) -> list[ProcessChannel]:
        worker = self._living
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs.extend(socket_pair() for _ in range(n))
            with worker.process.forking() as copies:
                forked = self._forked(await self._exchange(Fork(), [far for _, far in pairs]))
                processes = [copies.add(pid) for pid in forked.pids]
        except BaseException:
            for near, _ in pairs:
                near.close()
            raise
        finally:
            for _, far in pairs:
                far.close()
        return [
            ProcessChannel(Worker(near, process, worker.wanted, copied=True))
            for (near, _), process in zip(pairs, processes, strict=True)
        ]

    def _forked(self, reply: Reply) -> Forked:
        if isinstance(reply, Refused):
            raise CannotFork(f"the process cannot be copied: {reply.reason}")
        if not isinstance(reply, Forked):
            raise self._broken(f"a worker answered a call to fork by {type(reply).__name__}")
        return reply

    async def close(self) -> None:
        """Give the worker back to the pool, or end it. Never raises."""
        worker = self._worker
        if worker is None:
            return
        if not worker.worth_keeping:
            self.kill()
            return
        try:
            released = await self._exchange(Release())
        except EnvError:
            released = Value(False)
        if released != Value(True):
            self.kill()
            return
        self._detach()
        self._worker = None
        POOL.give_back(worker)

    def kill(self) -> None:
        """End the worker and all that it started; see `Channel.kill`."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._detach()
        if self._answer is not None and not self._answer.done() and not self._loop.is_closed():
            self._answer.set_exception(WorkerError("the worker was killed"))
        worker.end()

    async def _exchange(self, order: Order, sockets: Sequence[socket.socket] = ()) -> Reply:
        worker, data = self._living, frame(order)
        if self._busy:
            raise EnvError("the worker is busy with an earlier call; await it first")
        self._busy = True
        try:
            sent = self._send(worker, data, sockets)
            if sent < len(data):
                await self._loop.sock_sendall(worker.socket, memoryview(data)[sent:])
        except OSError:
            pass  # the end of the stream will be read, and says why
        except BaseException:
            self.kill()
            raise
        finally:
            self._busy = False
        return await self._receive()

    def _send(self, worker: Worker, data: bytes, sockets: Sequence[socket.socket]) -> int:
        try:
            return send_sockets(worker.socket, data, sockets) if sockets else worker.socket.send(data)
        except BlockingIOError:
            return 0

    async def _receive(self) -> Reply:
        worker, self._busy = self._living, True
        try:
            if self._fault is not None:
                raise self._fault
            self._answer = self._loop.create_future()
            return decode_reply(await self._answer)
        except EOFError:
            how = await worker.process.why()
            self.kill()
            raise WorkerError(f"the worker process {how}") from None
        except DataError as error:
            raise self._broken(str(error)) from error
        except BaseException:
            self.kill()  # an answer that comes late would be taken for the next one
            raise
        finally:
            self._answer, self._busy = None, False

    def _read(self) -> None:
        """Take in what the worker says; the event loop calls this when there is something."""
        worker = self._worker
        if worker is None:
            return
        try:
            data = worker.socket.recv(worker.frames.missing)
            replies = worker.frames.add(data)
        except BlockingIOError:
            return
        except OSError:
            self._fail(EOFError())
        except DataError as error:
            self._fail(error)
        else:
            self._deliver(replies, ended=not data)

    def _deliver(self, replies: list[bytes], ended: bool) -> None:
        if ended:
            self._fail(EOFError())
        elif replies and (len(replies) > 1 or self._answer is None or self._answer.done()):
            self._fail(DataError("a worker said something that nobody asked for"))
        elif replies and self._answer is not None:
            self._answer.set_result(replies[0])

    def _fail(self, fault: Exception) -> None:
        """Nothing more can be read; whoever waits, or comes next, is told."""
        self._fault = fault
        self._detach()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(fault)

    def _detach(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)

    def _broken(self, why: str) -> WorkerError:
        self.kill()
        return WorkerError(why)

    @property
    def _living(self) -> Worker:
        if self._worker is None:
            raise WorkerError("the worker is gone")
        return self._worker
