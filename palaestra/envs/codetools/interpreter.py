"""The near side of the Python tool: an interpreter in a sandbox that keeps its names from cell to cell."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.place import Place
from palaestra.errors import SandboxError
from palaestra.sandboxes.commands import Chunk, Exec, ExecResult

_FEED = 'exec cat > "$0"'
_START_SECONDS, _PAUSE = 60.0, 0.1
_CANNOT_START = 126
"""Exit code of a program that is there and cannot be started."""


class Ran(NamedTuple):
    """What came of a cell."""

    output: bytes
    """What it printed, at most `CodeLimits.flood` of it."""
    ok: bool
    """Whether it came to its end without an error."""
    stopped: str = ""
    """Why it was stopped; its interpreter is gone then, and with it all names."""


class Interpreter:
    """One interpreter, which starts with `start` and ends with `close`, or with a cell that has to be stopped."""

    def __init__(self, place: Place, command: Sequence[str], limits: CodeLimits, folder: str = "/tmp") -> None:
        """See the class.

        Args:
            place: where it runs.
            command: that starts Python there.
            limits: of each cell.
            folder: a folder there in which pipes can be made.
        """
        self._place, self._limits = place, limits
        self._mark = secrets.token_hex(8)
        self._pipe = f"{folder}/.palaestra-{self._mark}"
        arguments = ("-s", "-B", "-c", _source(), self._pipe, self._mark, str(limits.memory))
        self._exec = Exec(argv=(*command, *arguments), timeout=limits.lifetime, output=0)
        self._heard = _Heard(self._mark, limits.flood)
        self._life: asyncio.Task[ExecResult] | None = None
        self._cells = 0

    @property
    def alive(self) -> bool:
        """Whether it has started and not ended."""
        return self._life is not None and not self._life.done()

    async def start(self) -> None:
        """Start it.

        Raises:
            SandboxError: there is no such interpreter in the sandbox, or it does not start.
        """
        until = asyncio.get_running_loop().time() + _START_SECONDS
        try:
            while why := await self._begun(until):
                if not self._crowded or asyncio.get_running_loop().time() + _PAUSE > until:
                    raise SandboxError(f"the interpreter does not start: {why}")
                await asyncio.sleep(_PAUSE)
        except BaseException:
            await self.close()
            raise

    async def _begun(self, until: float) -> str:
        """Start it; why that cannot be done."""
        self._heard.expect("0", "r")
        self._life = asyncio.create_task(self._place.exec(self._exec, self._heard.hear))
        self._life.add_done_callback(_seen)
        await self._until(until)
        if self._heard.ended.is_set():
            return ""
        said = bytes(self._heard.output).decode("utf-8", "replace").strip()[-300:]
        why = self._why() if self._life.done() else "it says nothing"
        return f"{why}: {said}" if said else why

    @property
    def _crowded(self) -> bool:
        """Whether it did not start because those before it, which are being killed, still take all places."""
        return self._life is not None and self._life.done() and self._life.result().exit_code == _CANNOT_START

    async def run(self, code: str) -> Ran:
        """Run a cell.

        Raises:
            SandboxError: the sandbox is closed or lost.
        """
        self._cells += 1
        data = code.encode("utf-8", "replace")
        frame = b"%d %d %d\n%b" % (self._cells, self._limits.cpu_seconds, len(data), data)
        self._heard.expect(str(self._cells), "ke")
        until = asyncio.get_running_loop().time() + self._limits.seconds
        try:
            stopped = await self._fed(frame, until) or await self._waited(until)
        except BaseException:
            await self.close()
            raise
        if stopped:
            await self.close()
        return Ran(bytes(self._heard.output), not stopped and self._heard.status == "k", stopped)

    async def close(self) -> None:
        """End it with all that its code began. May be called more than once."""
        if self._life is not None:
            self._life.cancel()
            with suppress(asyncio.CancelledError, SandboxError):
                await asyncio.shield(asyncio.wait((self._life,)))

    def ended(self) -> str:
        """Why it is not alive any more; empty where it is, or was never started."""
        return "" if self._life is None or self.alive else self._why()

    async def _fed(self, frame: bytes, until: float) -> str:
        """Hand a cell over; why that cannot be done."""
        command = Exec(argv=("sh", "-c", _FEED, self._pipe), stdin=frame, timeout=self._limits.seconds, output=256)
        feed = asyncio.create_task(self._place.exec(command))
        try:
            await self._until(until, feed)
            if not feed.done() or feed.result().ok:
                return ""
            return "" if self._life_is_over else "the sandbox has no room for another process"
        finally:
            feed.cancel()
            await asyncio.wait((feed,))

    async def _waited(self, until: float) -> str:
        """Wait for the end of a cell; why it had to be stopped."""
        await self._until(until)
        if self._heard.ended.is_set():
            return ""
        if self._heard.flooded:
            return f"it printed more than {self._limits.flood} bytes"
        if self._life_is_over:
            return self._why()
        return f"it took more than {self._limits.seconds:g} s"

    async def _until(self, until: float, *others: asyncio.Task[ExecResult]) -> None:
        """Wait for the mark, a flood, the end of the interpreter or of one of `others`, or the time `until`."""
        assert self._life is not None
        left = max(0.0, until - asyncio.get_running_loop().time())
        marked = asyncio.create_task(self._heard.noticed.wait())
        try:
            await asyncio.wait((marked, self._life, *others), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            marked.cancel()

    @property
    def _life_is_over(self) -> bool:
        return self._life is not None and self._life.done()

    def _why(self) -> str:
        """How it ended, in words.

        Raises:
            SandboxError: it was the sandbox that ended.
        """
        assert self._life is not None
        return "it was stopped" if self._life.cancelled() else _words(self._life.result(), self._limits)


class _Heard:
    """What the interpreter writes, and where in it a cell begins and ends."""

    def __init__(self, mark: str, flood: int) -> None:
        self._mark, self._flood = mark.encode(), flood
        self.noticed = asyncio.Event()
        """Set with `ended`, and at a flood."""
        self.ended = asyncio.Event()
        self.expect("", "")

    def expect(self, number: str, statuses: str) -> None:
        """Forget all, and listen for the end of a cell, which is one of `statuses`."""
        self._begin = b"\0%b %b b\0" % (self._mark, number.encode())
        self._ends = {b"\0%b %b %b\0" % (self._mark, number.encode(), s.encode()): s for s in statuses}
        self.output, self.status, self.flooded = bytearray(), "", False
        self._begun = statuses == "r"
        self.noticed.clear()
        self.ended.clear()

    def hear(self, chunk: Chunk) -> None:
        """Take in what was written."""
        if self.noticed.is_set() or not self._ends:
            return
        searched = max(0, len(self.output) - 64)
        self.output += chunk.data
        if not self._begun:
            searched = self._skip()
        for end, status in self._ends.items():
            if (found := self.output.find(end, searched)) >= 0:
                del self.output[found:]
                self.status = status
                self.ended.set()
                self.noticed.set()
                return
        if len(self.output) > self._flood:
            self.flooded = True
            self.noticed.set()

    def _skip(self) -> int:
        """Drop what threads of earlier cells wrote since then."""
        begin = self.output.find(self._begin)
        if begin < 0:
            del self.output[:-64]
            return 0
        self._begun = True
        del self.output[: begin + len(self._begin)]
        return 0


def _words(result: ExecResult, limits: CodeLimits) -> str:
    if result.ending == "timeout":
        return "its sandbox has lived for as long as it may"
    if result.ending == "flood":
        return "it printed more than it may"
    if result.ending == "memory":
        return "it used more memory than it may"
    if result.ending == "signal":
        number = result.exit_code - 128
        if number == signal.SIGXCPU:
            return f"it used more than {limits.cpu_seconds} s of processor time"
        return f"it was ended by signal {number}"
    return f"it exited with code {result.exit_code}"


def _seen(life: asyncio.Task[ExecResult]) -> None:
    """What became of an interpreter is for the next call to tell, and there may be none."""
    if not life.cancelled():
        life.exception()


@lru_cache(1)
def _source() -> str:
    return Path(__file__).with_name("kernel.py").read_text(encoding="utf-8")
