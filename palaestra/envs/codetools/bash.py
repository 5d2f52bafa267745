"""The shell tool: commands in a shell whose folder, variables and background jobs live from call to call."""

from __future__ import annotations

import shlex
from typing import Any

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.outcome import Outcome
from palaestra.envs.codetools.schema import schema
from palaestra.envs.codetools.showing import shown_output
from palaestra.envs.codetools.workplace import Workplace
from palaestra.sandboxes.commands import ExecResult
from palaestra.sandboxes.core import Session

_GONE = "The shell starts afresh in the same folder: variables and background jobs are gone, files are not."
_STOPPED = {
    "flood": "it printed more than it may",
    "memory": "it used more memory than it may",
}


class BashTool:
    """Runs scripts in a shell that is started with the first of them."""

    name = "bash"

    def __init__(self, workplace: Workplace, limits: CodeLimits) -> None:
        self._workplace, self._limits = workplace, limits
        self._session: Session | None = None

    def schema(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        return schema(
            self.name,
            "Run commands in a shell: folder and variables live from call to call. Returns what they printed, and the "
            "exit code where it is not 0. No network, no input.",
            "command",
            "the commands",
        )

    async def call(self, command: str) -> Outcome:
        """Run commands.

        Raises:
            SandboxError: there is no sandbox, or it was lost.
        """
        if len(command) > self._limits.code:
            text = f"The command has more than {self._limits.code} characters and was not run."
            return Outcome(self.name, text, False)
        if self._session is None:
            self._session = await (await self._workplace.sandbox()).session()
        script = f"exec 2>&1; {command}"  # one stream, so that lines keep their order
        return self._told(await self._session.run(script, self._limits.seconds))

    async def restart(self) -> None:
        """Do as if the last call had been stopped."""
        if self._session is None:
            return
        folder = (await self._session.run("pwd", self._limits.seconds)).stdout.text.rstrip("\n")
        await self.close()
        self._session = await (await self._workplace.sandbox()).session()
        await self._session.run(f"cd -- {shlex.quote(folder)}", self._limits.seconds)

    async def close(self) -> None:
        """End the shell. May be called more than once."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _told(self, result: ExecResult) -> Outcome:
        texts = [shown_output(each, self._limits.output) for each in (result.stdout, result.stderr)]
        stopped = f"it took more than {self._limits.seconds:g} s" if result.ending == "timeout" else ""
        stopped = _STOPPED.get(result.ending, stopped)
        if stopped and not self._limits.partial:
            texts = []
        if stopped:
            texts.append(f"Stopped: {stopped}. {_GONE}")
        elif result.exit_code:
            texts.append(f"[exit code {result.exit_code}]")
        return Outcome(self.name, "\n".join(text.rstrip("\n") for text in texts if text), result.ok, stopped)
