"""What a shell knows, written down so that another one can go on: folder, variables, functions, aliases, options."""

from __future__ import annotations

from palaestra.errors import SandboxError
from palaestra.sandboxes.commands import ExecResult
from palaestra.sandboxes.core import Sandbox, Session

SECONDS = 20.0
_SAVE = """
builtin printf 'cd -- %q 2>/dev/null\\n' "$PWD"
builtin declare -p
builtin declare -f
builtin alias -p
builtin shopt -p
"""
_BEGIN = "cd -- {folder}\nexport PAGER=cat GIT_PAGER=cat TERM=dumb\n"


async def begin(sandbox: Sandbox, folder: str) -> Session:
    """A shell in `folder`, an absolute path.

    Raises:
        SandboxError: the sandbox is lost, or there is no such folder.
    """
    session = await sandbox.session()
    result = await session.run(_BEGIN.format(folder=_quoted(folder)), SECONDS)
    if not result.ok:
        raise SandboxError(f"a shell cannot begin in {folder}: {result.stderr.text.strip()[-200:]}")
    return session


async def save(session: Session) -> str:
    """A script that makes another shell know what this one does. Jobs in the background are not in it.

    Raises:
        SandboxError: the sandbox is lost.
    """
    return _whole(await session.run(_SAVE, SECONDS))


async def resume(sandbox: Sandbox, folder: str, saved: str) -> Session:
    """A shell that goes on where `save` was called. Variables that no shell lets anybody set stay its own.

    Raises:
        SandboxError: as `begin`.
    """
    session = await begin(sandbox, folder)
    if saved:
        await session.run(f"eval {_quoted(saved)} 2>/dev/null", SECONDS)
    return session


def _whole(result: ExecResult) -> str:
    """What was said; nothing where a part is missing, for half of a function is none."""
    return "" if result.stdout.dropped else (result.stdout.head + result.stdout.tail).decode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
