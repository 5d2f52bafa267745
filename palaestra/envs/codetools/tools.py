"""Code tools of one environment: which there are, the calls of an episode, and playing them again in another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import msgspec

from palaestra.envs.calls import Call, find_call
from palaestra.envs.codetools.bash import BashTool
from palaestra.envs.codetools.gate import gate
from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.outcome import Outcome
from palaestra.envs.codetools.python import PythonTool
from palaestra.envs.codetools.where import find_where
from palaestra.envs.codetools.workplace import Workplace
from palaestra.errors import ReplayError, UnknownNameError

_TOOLS: dict[str, type[PythonTool | BashTool]] = {"python": PythonTool, "bash": BashTool}


class Made(msgspec.Struct, frozen=True):
    """A call that was made."""

    tool: str
    argument: str
    ok: bool
    stopped: bool
    """It had to be stopped, and is not made again."""


class CodeState(msgspec.Struct, frozen=True):
    """An episode so far: enough to bring a fresh sandbox to where it stands."""

    calls: tuple[Made, ...] = ()
    files: dict[str, bytes] = {}


class CodeTools:
    """What an environment holds to offer code tools. Its sandbox is started by the first call and ends with `close`.

    self.code = CodeTools("python", "bash")
    ...
    call = self.code.find(action)
    if call is not None:
        done = await self.code.call(call.name, call.argument)
        return Step(done.result, 0.0, False, False, {"tool": done.tool})
    """

    def __init__(
        self,
        *names: str,
        where: str = "bubblewrap",
        image: str = "",
        settings: Mapping[str, Any] | None = None,
        limits: CodeLimits | None = None,
    ) -> None:
        """See the class.

        Args:
            names: of the tools: `python`, `bash`.
            where: `bubblewrap`, `docker`, `remote`, or `none`, which runs Python on this machine with limits only.
            image: of the back end; empty with bubblewrap: what there is on this machine.
            settings: of the back end, see `open_backend`.
            limits: of an episode; `CodeLimits()` if not given.

        Raises:
            UnknownNameError: there is no such tool.
            EnvError: there is no such place.
        """
        for name in names:
            if name not in _TOOLS:
                raise UnknownNameError("code tool", name, _TOOLS)
        self.names, self._limits = names, limits or CodeLimits()
        self._where = find_where(where, image, settings)
        self._state, self._behind = CodeState(), tuple[Made, ...]()
        self._workplace = Workplace(self._where, self._limits)
        self._tools = {name: _TOOLS[name](self._workplace, self._limits) for name in names}

    def schemas(self) -> list[dict[str, Any]]:
        """For `Env.tools`."""
        return [tool.schema() for tool in self._tools.values()]

    def find(self, action: object) -> Call | None:
        """The first call of one of the tools in an action; see `find_call`."""
        return find_call(action, self.names)

    async def begin(self, files: Mapping[str, bytes] | None = None) -> None:
        """Begin an episode: nothing is left of the one before.

        Args:
            files: what is in the work folder from the beginning: path there -> content.
        """
        await self.restore(CodeState(files=dict(files or {})))

    async def call(self, name: str, argument: str) -> Outcome:
        """Make a call. What the code does wrong is in the outcome.

        Raises:
            UnknownNameError: there is no such tool.
            SandboxError: there is no sandbox, or it was lost.
            ReplayError: after `restore`, an earlier call went another way than before.
        """
        if name not in self._tools:
            raise UnknownNameError("code tool", name, self._tools)
        async with gate() if self._where.local else nullcontext():
            await self._catch_up()
            outcome = await self._tools[name].call(argument)
        made = Made(name, argument, outcome.ok, bool(outcome.stopped))
        self._state = CodeState((*self._state.calls, made), self._state.files)
        return outcome

    def snapshot(self) -> CodeState:
        """The episode's calls, which is what its state is made from again."""
        return self._state

    async def restore(self, state: CodeState) -> None:
        """Go on from `state`. Its calls are made again, in a fresh sandbox, when the next call is."""
        await self._leave(state)

    async def close(self) -> None:
        """End the episode's sandbox and all in it. May be called more than once; `call` brings all back."""
        try:
            await self._leave(self._state)
        finally:
            await self._workplace.close()

    async def _leave(self, state: CodeState) -> None:
        """End the sandbox; the next call finds one that stands at `state`."""
        self._state, self._behind = state, state.calls
        for tool in self._tools.values():
            await tool.close()
        await self._workplace.begin(state.files)

    async def _catch_up(self) -> None:
        """Make the calls again that this sandbox has not seen."""
        try:
            for number, made in enumerate(self._behind, 1):
                await self._again(number, made)
        except BaseException:
            await self._leave(self._state)
            raise
        self._behind = ()

    async def _again(self, number: int, made: Made) -> None:
        tool = self._tools[made.tool]
        if made.stopped:
            await tool.restart()
            return
        outcome = await tool.call(made.argument)
        if outcome.ok != made.ok:
            before, now = ("succeeded" if ok else "failed" for ok in (made.ok, outcome.ok))
            raise ReplayError(
                f"call {number} of the episode, of {made.tool}, {before} and {now} when it was made again for a fork: "
                f"{outcome.text[:200]}",
                step=number,
                expected=before,
                got=now,
            )
