"""The tools: each carries out one call in the sandbox and tells the agent what came of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from palaestra.envs.swe.request import Request
from palaestra.envs.swe.truncation import shortened, tidied
from palaestra.errors import SandboxPathError
from palaestra.sandboxes.commands import Exec, ExecResult
from palaestra.sandboxes.core import Sandbox, Session

INSIDE = files("palaestra.envs.swe").joinpath("inside.py").read_text("utf-8")
LOOK_SECONDS = 30.0
"""That looking, searching and changing a file may take."""
_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer from inside that are read."""
_FAILED_AT = re.compile(r"^error: patch failed: (?P<path>.+):(?P<line>\d{1,9})$", re.MULTILINE)


class Outcome(NamedTuple):
    """What a call led to."""

    text: str
    """For the agent."""
    ok: bool = True
    """Whether it did what it was called for; for a command: whether it ended with 0."""
    refused: bool = False
    """Whether the call was impossible as it was made."""
    more: Mapping[str, Any] = {}
    """For `info["tool"]`, beside `name` and `ok`."""


class Answer(msgspec.Struct):
    """What the program inside answers; it comes from the sandbox, so nothing rests on it."""

    ok: bool
    text: str
    results: int = 0
    """Of a search."""


class Tools:
    """The tools of one episode, in one sandbox."""

    def __init__(self, sandbox: Sandbox, session: Session, repository: str, most: int, seconds: float) -> None:
        """
        Args:
            sandbox: where.
            session: the shell.
            repository: absolute path of the folder that paths are relative to.
            most: characters of what is shown of one call.
            seconds: that a command may take.
        """
        self.sandbox, self.session, self.repository = sandbox, session, repository
        self.most, self.seconds = most, seconds
        self._tools: Mapping[str, Callable[..., Awaitable[Outcome]]] = {
            "shell": self._shell,
            "view": self._view,
            "search": self._search,
            "edit": self._edit,
            "apply_patch": self._apply_patch,
        }

    async def serve(self, request: Request) -> Outcome:
        """Carry out a call of any tool but `submit`.

        Raises:
            SandboxError: the sandbox is lost.
        """
        if request.problem:
            return Outcome(f"The call of {request.name} cannot be read: {request.problem}.", False, True)
        try:
            return await self._tools[request.name](**request.arguments)
        except SandboxPathError as error:
            return Outcome(tidied(str(error)), False, True)

    async def _shell(self, command: str) -> Outcome:
        # In one stream, so that messages stand where they came; the colon, for a script of nothing but comments.
        result = await self.session.run(f"{{ :\n{command}\n}} 2>&1", self.seconds)
        text = shortened(_printed(result), self.most)
        if result.ending == "exit" and result.exit_code == 0:
            return Outcome(text.rstrip("\n") or "(no output)", more={"exit_code": 0})
        how = _ENDINGS[result.ending].format(code=result.exit_code, seconds=self.seconds)
        parts = [text.rstrip("\n"), f"({how})"]
        return Outcome("\n".join(filter(None, parts)), False, more={"exit_code": result.exit_code})

    async def _view(self, path: str, first: int = 1, last: int | None = None) -> Outcome:
        return await self._inside("view", path=path, first=first, last=last, most=self.most - 100)

    async def _search(self, pattern: str, path: str = ".") -> Outcome:
        return await self._inside("search", pattern=pattern, path=path or ".", most=self.most - 300)

    async def _edit(self, path: str, blocks: Any = None, old: str = "", new: str = "") -> Outcome:
        given = [[old, new]] if blocks is None else blocks
        return await self._inside("edit", path=path, blocks=given, most=max(self.most // 2, 500))

    async def _inside(self, do: str, **arguments: Any) -> Outcome:
        question = msgspec.json.encode({"do": do, **arguments})
        command = Exec(
            argv=("python3", "-I", "-S", "-c", INSIDE),
            cwd=self.repository,
            stdin=question,
            timeout=LOOK_SECONDS,
            output=_ANSWER,
        )
        result = await self.sandbox.exec(command)
        answer = _answer(result)
        if answer is None:
            why = f"took longer than {LOOK_SECONDS:g} s" if result.ending == "timeout" else "did not work"
            detail = shortened(result.stderr.text, 600).strip().rpartition("\n")[2]
            return Outcome(f"{do} {why}; use the shell instead. {detail}".rstrip(), False)
        more = {"results": answer.results} if do == "search" else {}
        refused = not answer.ok and do != "search"
        return Outcome(shortened(answer.text, self.most), answer.ok, refused, more)

    async def _apply_patch(self, patch: str) -> Outcome:
        patch = patch.rstrip("\n")
        # Whoever trims a message takes blank context lines from its end, and the last line of a binary patch.
        result = await self._git_apply(patch + 4 * "\n")
        if not result.ok:  # counts in the headers of hunks are what models get wrong first
            again = await self._git_apply(patch + "\n", "--recount")
            result = again if again.ok else result
        said = "\n".join(line for line in tidied(result.stderr.text).splitlines() if not line.startswith("Checking"))
        if result.ok:
            return Outcome(f"The patch is applied.\n{shortened(said, self.most // 2).strip()}".strip())
        text = f"The patch does not apply, and nothing was changed:\n{shortened(said, self.most // 2).strip()}"
        return Outcome(text + await self._actual(said), False, True)

    async def _git_apply(self, patch: str, *options: str) -> ExecResult:
        return await self.sandbox.exec(
            Exec(
                argv=("git", "apply", "--verbose", "--whitespace=nowarn", *options, "-"),
                cwd=self.repository,
                env={"LC_ALL": "C"},
                stdin=patch.encode("utf-8", "surrogatepass"),
                timeout=LOOK_SECONDS,
            )
        )

    async def _actual(self, said: str) -> str:
        """What the file has where the first hunk failed."""
        match = _FAILED_AT.search(said)
        if match is None:
            return ""
        line = int(match["line"])
        seen = await self._inside(
            "view", path=match["path"], first=max(1, line - 2), last=line + 12, most=self.most // 3
        )
        return f"\n{match['path']} has there:\n{seen.text}" if seen.ok else ""


_ENDINGS = {
    "exit": "exit code {code}",
    "signal": "ended by a signal, exit code {code}",
    "timeout": "stopped after {seconds:g} s; the shell is a new one in the same folder, without its variables",
    "flood": "stopped: it printed without end",
    "memory": "stopped: it took more memory than there is",
}


def _printed(result: ExecResult) -> str:
    """All that it printed; what the shell itself says, of a syntax error for example, comes last."""
    printed, said = result.stdout.text, result.stderr.text
    if not said:
        return printed
    return f"{printed.rstrip(chr(10))}\n{said}" if printed else said


def _answer(result: ExecResult) -> Answer | None:
    if not result.ok or result.stdout.dropped:
        return None
    try:
        return msgspec.json.decode(result.stdout.head + result.stdout.tail, type=Answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
