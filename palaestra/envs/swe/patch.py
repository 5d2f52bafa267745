"""The result of an episode: what changed in the repository, as a diff that git can apply, new and binary files too.

It is made inside of the sandbox, by its git, with none of the agent's settings. It is a record of the work for people
and for other graders; rewards rest on the files themselves, which are judged in a sealed copy.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from palaestra.envs.swe.instance import Instance
from palaestra.errors import SandboxError, SandboxPathError
from palaestra.sandboxes.commands import Exec, ExecResult
from palaestra.sandboxes.core import Sandbox

MOST_BYTES = 8 * 1024 * 1024
"""Of a patch."""
BEGIN_SECONDS, DIFF_SECONDS = 120.0, 30.0
"""That git may take at the beginning, and at the end, where an agent may have left what it would read for hours."""
AUTHOR = {
    "GIT_AUTHOR_NAME": "palaestra",
    "GIT_AUTHOR_EMAIL": "palaestra@localhost",
    "GIT_COMMITTER_NAME": "palaestra",
    "GIT_COMMITTER_EMAIL": "palaestra@localhost",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
"""Variables with which git works in any folder, for the agent too."""
_QUIET = {
    **AUTHOR,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_GIT = (
    "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.autocrlf=false -c core.safecrlf=false "
    "-c core.attributesFile=/dev/null -c diff.noprefix=false -c diff.mnemonicPrefix=false -c init.defaultBranch=main "
    "-c gc.auto=0 -c commit.gpgSign=false -c advice.addEmbeddedRepo=false"
)

_BEGIN = f"""
set -e
if [ -n "$base" ]; then
    {_GIT} checkout -q -f --detach "$base" --
    {_GIT} ls-files -z > "$list"
    rm -rf .git
fi
if ! [ -e .git ] && [ "$1" = untouched ]; then
    exit 0
fi
if ! [ -e .git ]; then
    {_GIT} init -q
    if [ -n "$base" ]; then
        {_GIT} add -A .
        {_GIT} add -f --pathspec-from-file="$list" --pathspec-file-nul
    else
        {_GIT} add -A -f .
    fi
    {_GIT} commit -q --no-verify --allow-empty -m "the task begins"
fi
{_GIT} rev-parse --verify HEAD
"""
_DIFF = f"""
set -e
GIT_INDEX_FILE="$list"
export GIT_INDEX_FILE
{_GIT} read-tree "$base"
{_GIT} add -A .
{_GIT} diff --cached --binary --full-index --no-color --no-ext-diff --no-textconv --no-renames "$base" -- . "$@"
"""


class Patch(NamedTuple):
    """What was done."""

    text: str
    """A unified diff; empty where nothing was changed, or it cannot be told."""
    problem: str = ""
    """Why it cannot be told; or empty."""


async def begin(sandbox: Sandbox, instance: Instance) -> str:
    """Make the repository one of a single commit, unless it is one already, and say which commit the work begins at.

    A folder of Harbor's that is no repository stays none, for anything in it may be what is judged; then that is empty.

    One with a `base_commit` is put back to it and loses its history: what came later in it would be the solution.

    Raises:
        SandboxError: git does not do it.
    """
    untouched = instance.format == "harbor"
    result = await _run(sandbox, instance, _BEGIN, instance.base_commit, "untouched" if untouched else "")
    commit = result.stdout.text.strip()
    if not result.ok or not (commit or untouched):
        why = " ".join(result.stderr.text.split())[-300:] or f"exit code {result.exit_code} ({result.ending})"
        raise SandboxError(
            f"the repository {instance.repository} of {instance.name!r} cannot be prepared by git: {why}"
        )
    return commit.splitlines()[-1] if commit else ""


async def changes(sandbox: Sandbox, instance: Instance, commit: str) -> Patch:
    """The work since `commit`, without files that belong to the tests or that the repository has git ignore.

    Raises:
        SandboxError: the sandbox is lost.
    """
    if not commit:
        return Patch("", f"{instance.repository} was no repository when the work began")
    left_out = [f":(top,exclude,literal){path}" for path in instance.test_paths]
    try:
        result = await _run(sandbox, instance, _DIFF, commit, *left_out, seconds=DIFF_SECONDS)
    except SandboxPathError as error:
        return Patch("", f"git cannot tell what was changed: {error}")
    if result.stdout.dropped:
        return Patch("", f"the patch has more than {MOST_BYTES} bytes")
    if not result.ok:
        late = f"it took longer than {DIFF_SECONDS:g} s" if result.ending == "timeout" else ""
        why = late or " ".join(result.stderr.text.split())[-300:] or f"exit code {result.exit_code}"
        return Patch("", f"git cannot tell what was changed: {why}")
    return Patch((result.stdout.head + result.stdout.tail).decode("utf-8", "replace"))


async def _run(
    sandbox: Sandbox, instance: Instance, script: str, base: str, *arguments: str, seconds: float = BEGIN_SECONDS
) -> ExecResult:
    head = f"base={shlex.quote(base)}\nlist=$(mktemp -u)\ntrap 'rm -f \"$list\"' EXIT\n"
    return await sandbox.exec(
        Exec(
            argv=("bash", "--norc", "-c", head + script, "bash", *arguments),
            cwd=instance.repository,
            env=_QUIET,
            timeout=seconds,
            output=2 * MOST_BYTES,
        )
    )
