"""The Python tool: cells of a notebook, whose names live from call to call."""

from __future__ import annotations

import sys
from typing import Any

from palaestra.envs.codetools.interpreter import Interpreter, Ran
from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.outcome import Outcome
from palaestra.envs.codetools.schema import schema
from palaestra.envs.codetools.showing import shown
from palaestra.envs.codetools.workplace import Workplace

_GONE = "The interpreter starts afresh: names defined before are gone, files are not."


class PythonTool:
    """Runs cells in an interpreter that is started with the first of them."""

    name = "python"

    def __init__(self, workplace: Workplace, limits: CodeLimits) -> None:
        self._workplace, self._limits = workplace, limits
        self._interpreter: Interpreter | None = None

    def schema(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return schema(
            self.name,
            "Run Python like a cell of a notebook: names live from call to call, and the value of a last line that is "
            "an expression is shown. Returns what it printed. No network.",
            "code",
            "the cell",
        )

    async def call(self, code: str) -> Outcome:
        """Run a cell.

        Raises:
            SandboxError: there is no sandbox, it has no Python, or it was lost.
        """
        if len(code) > self._limits.code:
            return Outcome(self.name, f"The code has more than {self._limits.code} characters and was not run.", False)
        ended = self._interpreter.ended() if self._interpreter is not None else ""
        if self._interpreter is None or not self._interpreter.alive:
            self._interpreter = await self._started()
        return self._told(await self._interpreter.run(code), ended)

    async def restart(self) -> None:
        """Do as if the last call had been stopped."""
        await self.close()

    async def close(self) -> None:
        """End the interpreter. May be called more than once."""
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            await interpreter.close()

    async def _started(self) -> Interpreter:
        place = await self._workplace.place()
        command = (sys.executable,) if self._workplace.where.here else ("python3",)
        interpreter = Interpreter(place, command, self._limits, self._workplace.temporary)
        await interpreter.start()
        return interpreter

    def _told(self, ran: Ran, ended: str) -> Outcome:
        text = shown(ran.output, self._limits.output)
        if ended:
            text = f"[Since the last call the interpreter had ended: {ended}. {_GONE}]\n{text}"
        if not ran.stopped:
            return Outcome(self.name, text, ran.ok)
        self._interpreter = None
        before = text.rstrip("\n") + "\n" if text and self._limits.partial else ""
        return Outcome(self.name, f"{before}Stopped: {ran.stopped}. {_GONE}", False, ran.stopped)
