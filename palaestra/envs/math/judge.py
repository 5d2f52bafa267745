"""The near side of the judges: a few worker processes for all environments of this process, killed where they hang.

They start when the first answer needs one, end with this process however it ends, and do not outlive a fork: the copy
starts its own. Asking one waits in the event loop that asks; any number of loops and threads may.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec

import msgspec

from palaestra.envs.isolation.wire import CHUNK, Frames, frame
from palaestra.envs.isolation.zygote import Process, socket_pair, spawn
from palaestra.envs.math.equal import equal
from palaestra.envs.math.judging import READY, Judgement, Question
from palaestra.errors import EnvError, MissingExtraError, WorkerError

MOST_JUDGES = max(2, min(4, os.cpu_count() or 2))
SECONDS = 60.0
"""For one judgement, by the clock; the judge limits its processor time itself, whatever else the machine does."""
START_SECONDS = 120.0
_SERVE = "palaestra.envs.math.judging:serve"
_JUDGEMENTS: msgspec.msgpack.Decoder[Judgement] = msgspec.msgpack.Decoder(Judgement)


async def judge(answer: str, gold: str) -> Judgement:
    """Whether `answer` is `gold`: by plain equality where that tells, else by `math-verify`.

    An answer that takes the judge more time or memory than there is, or crashes it, is not right, and `error` says so.

    Raises:
        EnvError: no judge can be had.
        MissingExtraError: math-verify is needed and not installed.
    """
    plain = equal(answer, gold)
    return await JUDGES.ask(Question(answer, gold)) if plain is None else Judgement(plain)


@dataclass(slots=True)
class _Judge:
    process: Process
    near: socket.socket
    ready: bool = False

    @property
    def well(self) -> bool:
        try:
            self.near.recv(1, socket.MSG_PEEK)  # the end, or what nobody asked for
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def end(self) -> None:
        self.near.close()
        self.process.kill()

    async def exchange(self, question: Question) -> Judgement:
        """Raises EOFError where the judge is gone, TimeoutError where it takes too long."""
        loop = asyncio.get_running_loop()
        if not self.ready:
            async with asyncio.timeout(START_SECONDS):
                if await self._hear(loop) != READY:
                    raise EOFError
            self.ready = True
        async with asyncio.timeout(SECONDS):
            await loop.sock_sendall(self.near, frame(question))
            return await self._hear(loop)

    async def _hear(self, loop: asyncio.AbstractEventLoop) -> Judgement:
        frames = Frames()
        try:
            while data := await loop.sock_recv(self.near, CHUNK):
                for packed in frames.add(data):
                    return _JUDGEMENTS.decode(packed)
        except OSError:
            pass
        raise EOFError


class Judges:
    """The judges of this process, and who waits for one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._running: list[_Judge] = []
        """All of them, idle ones included."""
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running.clear()
        self._idle: list[_Judge] = []
        self._waiting: deque[Future[_Judge | None]] = deque()

    async def ask(self, question: Question) -> Judgement:
        """See `judge`. One that is lost without having used up its time gets a second chance, with a fresh judge."""
        for _ in range(2):
            judge = await self._take()
            try:
                judgement = await judge.exchange(question)
            except TimeoutError:
                await self._lost(judge)
                return Judgement(False, "timeout")
            except EOFError:
                if "SIGPROF" in await self._lost(judge):
                    return Judgement(False, "timeout")
            except BaseException:
                self._drop(judge)
                raise
            else:
                self._give_back(judge)
                return judgement
        return Judgement(False, "crash")

    async def _lost(self, judge: _Judge) -> str:
        """How it ended.

        Raises:
            EnvError: it never began to judge.
        """
        self._drop(judge)
        how = await judge.process.why()
        if not judge.ready:
            raise EnvError(f"the judge of answers does not start: {how}")
        return how

    async def _take(self) -> _Judge:
        with self._lock:
            while self._idle:
                judge = self._idle.pop()
                if judge.well:
                    return judge
                judge.end()
                self._running.remove(judge)
            if len(self._running) < self.most:
                return self._start()
            place: Future[_Judge | None] = Future()
            self._waiting.append(place)
        try:
            handed = await asyncio.wrap_future(place)
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and (late := place.result()) is not None:
                self._give_back(late)
            raise
        return handed if handed is not None else await self._take()

    def _start(self) -> _Judge:
        if find_spec("math_verify") is None:
            raise MissingExtraError("math_verify", "math")
        near, far = socket_pair()
        near.setblocking(False)
        try:
            judge = _Judge(spawn(_SERVE, [far]), near)
        except WorkerError:
            near.close()
            far.close()
            raise
        self._running.append(judge)
        return judge

    def _give_back(self, judge: _Judge) -> None:
        with self._lock:
            if not self._wake(judge):
                self._idle.append(judge)

    def _drop(self, judge: _Judge) -> None:
        """End it; who waits may start another."""
        judge.end()
        with self._lock:
            if judge in self._running:
                self._running.remove(judge)
            self._wake(None)

    def _wake(self, judge: _Judge | None) -> bool:
        while self._waiting:
            place = self._waiting.popleft()
            if place.set_running_or_notify_cancel():
                place.set_result(judge)
                return True
        return False

    def clear(self) -> None:
        """End all judges that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for judge in idle:
            self._drop(judge)

    def abandon(self) -> None:
        """Forget them: they belong to the process that this one was forked from."""
        for judge in self._running:
            judge.near.close()
        self._forget()


JUDGES = Judges(MOST_JUDGES)

os.register_at_fork(after_in_child=JUDGES.abandon)
