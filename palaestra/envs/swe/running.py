"""Running a package's tests over some working tree in bubblewrap, and who passed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from palaestra.envs.swe import outcomes
from palaestra.envs.swe.tree import write
from palaestra.errors import SandboxDaemonError

_PLUGIN = "palaestra_outcomes"
_PATCHED = 'git apply --whitespace=nowarn /work/out/patch; exec "$@"'
_HOST = ("--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc", "/etc", "--dev", "/dev", "--proc", "/proc")
_KEPT = ("bin", "sbin", "lib", "lib32", "lib64")
"""Links into /usr, or folders where it is not merged."""


class Run(Struct, frozen=True):
    """What came of the tests."""

    outcomes: Mapping[str, str]
    """Node id -> `passed`, `failed`, `skipped`, `xfailed`; empty where pytest did not come to its end."""
    seconds: float
    """That it took."""
    output: str
    """The end of what it printed."""

    @property
    def passed(self) -> frozenset[str]:
        """Node ids of the tests that passed."""
        return frozenset(id for id, outcome in self.outcomes.items() if outcome == "passed")


def run_tests(
    repository: Mapping[str, bytes] | Path,
    site: Path,
    command: Sequence[str],
    env: Mapping[str, str],
    overlay: Mapping[str, bytes] | None = None,
    *,
    removed: Sequence[str] = (),
    patch: str = "",
    seconds: float = 120.0,
) -> Run:
    """Run `command` in a copy of the repository, at /work/repo, without a network and with nothing else to write to.

    Args:
        repository: its files, or a folder that has them.
        site: folder of what the tests import, at /work/site.
        command: runs pytest.
        env: its variables.
        overlay: files to be laid over the repository.
        removed: files and folders to be removed before that.
        patch: a unified diff to be applied, by git, before the tests run.
        seconds: after which it is killed.

    Raises:
        SandboxDaemonError: there is no bubblewrap, or it may not make namespaces.
    """
    with tempfile.TemporaryDirectory(prefix="palaestra-swe-") as name:
        work = Path(name)
        repo = work / "repo"
        if isinstance(repository, Path):
            shutil.copytree(repository, repo, symlinks=True)
        else:
            write(repository, repo)
        for path in removed:
            shutil.rmtree(repo / path, ignore_errors=True)
            if (repo / path).is_file():
                (repo / path).unlink()
        write(overlay or {}, repo)
        write({f"plugin/{_PLUGIN}.py": Path(outcomes.__file__).read_bytes(), "out/.keep": b""}, work)
        shutil.copytree(site, work / "site")
        if patch:
            write({"out/patch": patch.encode()}, work)
            command = ("sh", "-ec", _PATCHED, "sh", *command)
        return _run(work, command, env, seconds)


def _run(work: Path, command: Sequence[str], env: Mapping[str, str], seconds: float) -> Run:
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/work",
        "LANG": "C.UTF-8",
        **env,
        outcomes.VARIABLE: "/work/out/outcomes.jsonl",
    }
    variables["PYTHONPATH"] = variables.get("PYTHONPATH", "") + ":/work/plugin"
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxDaemonError("bubblewrap is not installed; install it: on Debian, apt-get install bubblewrap")
    argv = [found, *_HOST, *_links(), "--tmpfs", "/tmp", "--bind", str(work), "/work", "--chdir", "/work/repo"]
    argv += ["--unshare-all", "--die-with-parent", "--new-session", "--", *command, "-p", _PLUGIN]
    began = time.monotonic()
    try:
        done = subprocess.run(argv, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=seconds)  # fmt: skip
        output = done.stdout[-4000:].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        return Run({}, time.monotonic() - began, f"killed after {seconds} seconds")
    if output.startswith("bwrap: "):
        raise SandboxDaemonError(
            f"bubblewrap does not start: {output[:300].strip()}; check that namespaces are allowed"
        )
    return Run(_outcomes(work / "out" / "outcomes.jsonl"), time.monotonic() - began, output)


def _links() -> list[str]:
    args: list[str] = []
    for name in _KEPT:
        place = Path("/") / name
        if place.is_symlink():
            args += ["--symlink", os.readlink(place), str(place)]
        elif place.is_dir():
            args += ["--ro-bind", str(place), str(place)]
    return args


def _outcomes(place: Path) -> dict[str, str]:
    if not place.is_file() or place.is_symlink():
        return {}
    found: dict[str, str] = {}
    for line in place.read_bytes().splitlines()[:100_000]:
        id, outcome = msgspec.json.decode(line, type=tuple[str, str])
        found[id] = outcome
    return found
