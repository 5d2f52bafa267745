"""A worker process: serves one environment on its socket until that closes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from contextlib import suppress

from palaestra.envs.isolation import forking, proc
from palaestra.envs.isolation.host import Host, failure
from palaestra.envs.isolation.lazyloop import LazyLoop
from palaestra.envs.isolation.protocol import Call, Failed, Value
from palaestra.envs.isolation.wire import Fork, Frames, Prepare, Refused, Release, decode_order, frame, receive_sockets
from palaestra.envs.registry import load_object
from palaestra.errors import PalaestraError


def serve(near: socket.socket) -> None:
    """Answer the calls that come on `near`, until it closes."""
    _Worker(near).run()


class _Worker:
    """Runs the environment's code in one long task, so that what never waits never comes near the event loop."""

    def __init__(self, near: socket.socket) -> None:
        self.host = Host()
        self.server = os.getppid()
        self.folder, self.environ = os.getcwd(), dict(os.environ)
        self.loop = LazyLoop()
        asyncio.set_event_loop(self.loop)
        self._settle(near)

    def _settle(self, near: socket.socket) -> None:
        """Begin to serve `near`."""
        self.near = near
        self.frames = Frames()
        self.waiting: deque[bytes] = deque()
        self.sockets: list[socket.socket] = []
        """That came with a call to fork."""
        self.files = {0, 1, 2, near.fileno()}
        """What is open besides anything of the environment's."""
        self.settled = False

    def run(self) -> None:
        """Serve until the other side closes."""
        while self.loop.run_until_complete(self._serve()):
            self._fork()

    async def _serve(self) -> bool:
        """Answer calls until one asks for a fork, which is done outside of the event loop; `False` at the end."""
        while (packed := await self._next()) is not None:
            order = decode_order(packed)
            if isinstance(order, Fork):
                return True
            if isinstance(order, Prepare):
                _prepare(order.entry_point)
                continue
            answer = await self._answer(order)
            try:
                self.near.sendall(answer)
            except OSError:
                return False
            if not self.settled:
                self._find_parent()
        return False

    async def _next(self) -> bytes | None:
        while not self.waiting:
            if len(asyncio.all_tasks()) > 1:
                await self._until_readable()  # tasks of the environment go on meanwhile
            try:
                data, sockets = receive_sockets(self.near, self.frames.missing)
            except OSError:
                return None
            if not data:
                return None
            self.sockets += sockets
            self.waiting.extend(self.frames.add(data))
        return self.waiting.popleft()

    async def _until_readable(self) -> None:
        readable = asyncio.Event()
        self.loop.add_reader(self.near, readable.set)
        try:
            await readable.wait()
        finally:
            self.loop.remove_reader(self.near)

    async def _answer(self, order: Call | Release) -> bytes:
        try:
            if isinstance(order, Release):
                return frame(Value(await self._release()))
            return frame(await self.host.answer(order))
        except PalaestraError as error:  # what no message can carry
            return frame(failure(error))
        except BaseException as error:  # sys.exit and the like: the environment failed, not this process
            return frame(_failure(error))
        finally:
            if task := asyncio.current_task():
                while task.cancelling():
                    task.uncancel()

    async def _release(self) -> bool:
        """Close the environment and undo what it changed here; whether it left no processes behind."""
        await self.host.close()
        os.chdir(self.folder)
        if os.environ != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        return not forking.has_children()

    def _fork(self) -> None:
        sockets, self.sockets = self.sockets, []
        if reason := forking.obstacle(self.loop, {*self.files, *(each.fileno() for each in sockets)}):
            self.near.sendall(frame(Refused(reason)))
            for each in sockets:
                each.close()
            return
        forking.multiply(self.near, sockets, self.files, self._live_on)

    def _live_on(self, own: socket.socket) -> None:
        """In a copy: serve its own socket."""
        self._settle(own)
        self.run()

    def _find_parent(self) -> None:
        """Once the fork server is the parent, its end is this process's end too."""
        if os.getppid() == self.server:
            proc.die_with_parent()
            self.settled = True
            if os.getppid() != self.server:  # it ended meanwhile
                os._exit(1)


def _prepare(entry_point: str) -> None:
    with suppress(BaseException):  # whoever makes the environment is told
        load_object(entry_point)


def _failure(error: BaseException) -> Failed:
    try:
        return failure(error)
    except Exception:
        return Failed(type(error).__name__, "its message cannot be shown")
