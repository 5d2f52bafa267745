"""A software-engineering task, whichever format it was read from: releases, Harbor, SWE-bench.

It says what is put into a sandbox before the agent begins, what is put there before its work is judged, and what the
verdict rests on. It is made at load time: a `Task` of a suite carries only what `read_instance` needs to make it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from palaestra.sandboxes.spec import Limits

Format = Literal["releases", "harbor", "swe-bench"]
Verdict = Literal["pytest", "reward-file"]


class Instance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task, complete. Paths in the sandbox are absolute; paths on this machine are absolute and only read."""

    name: str
    """Unique within its data set, as in `Task.name`."""
    format: Format
    """What it was read from."""
    problem: str
    """The problem statement: what the agent is told first."""

    image: str = ""
    """As in `SandboxSpec.image`; empty: any that has python3 and git (bubblewrap: this machine's root)."""
    build: str = ""
    """Folder on this machine with the Dockerfile that `image` is built from, where it is not there yet; or empty."""
    workdir: str = "/work"
    """As in `SandboxSpec.workdir`: all that a fork keeps."""
    repository: str = "/work/repo"
    """The folder that the agent works in and that the patch is taken of: the work folder or below it."""
    root: Literal["read-only", "writable"] = "read-only"
    """As in `SandboxSpec.root`."""
    env: dict[str, str] = {}
    """Variables of all commands, the agent's and the tests'."""
    network: tuple[str, ...] = ()
    """As in `SandboxSpec.network`; never for the tests."""
    limits: Limits = Limits()
    """Of the sandbox, the agent's and the tests'."""
    files: dict[str, str] = {}
    """Path in the sandbox -> folder on this machine, laid there before the agent begins. The repository is among them
    unless the image has it."""
    base_commit: str = ""
    """Commit that the image's repository is reset to; empty: it is as it lies (and is no git repository yet)."""

    test_files: dict[str, str] = {}
    """Path in the sandbox -> folder on this machine, laid there before the tests run and after the
    agent is done."""
    test_paths: tuple[str, ...] = ()
    """Files and folders in the repository, relative to it, that belong to the tests: removed before `test_files` are
    laid there, and no part of the patch."""
    test_patch: str = ""
    """Unified diff that makes the tests of `base_commit` those that judge; empty: `test_files` has them whole."""
    test_command: tuple[str, ...] = ()
    """Runs all of the tests, in the repository."""
    verdict: Verdict = "pytest"
    """What says who passed: pytest's node ids, or the number in Harbor's /logs/verifier/reward.txt."""
    fail_to_pass: tuple[str, ...] = ()
    """Node ids of tests that fail now and must pass; sorted; empty only where `verdict` is `reward-file`."""
    pass_to_pass: tuple[str, ...] = ()
    """Node ids of tests that pass now and must go on to; sorted."""

    gold_patch: str = ""
    """Unified diff (`git apply -p1` in the repository) that solves it; or empty."""
    solution: str = ""
    """Folder on this machine with Harbor's `solve.sh`, laid at /solution and run; or empty."""

    agent_seconds: float = 1800.0
    """That the agent may take over all turns."""
    test_seconds: float = 120.0
    """That `test_command` may take."""

    licence: str = ""
    """Of the repository: an SPDX expression where it is known."""
    source: str = ""
    """Where it comes from, for people: a package and its versions, a repository and commit, a folder."""
