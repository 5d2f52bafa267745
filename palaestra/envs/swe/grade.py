"""What grading found: `grade(instance, final, fresh)` of `palaestra.envs.swe.grading` returns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from palaestra.sandboxes.core import Sandbox

Fresh = Callable[[], Awaitable[Sandbox]]
"""Starts another sandbox in the task's initial state: `files` laid, `base_commit` checked out, no network, no tests."""


class Grade(Struct, frozen=True, kw_only=True):
    """The verdict on a final state. Nothing in it is for the agent to read while it works."""

    solved: bool
    """Whether every test that must pass passed, and every decoy failed."""
    passed: int = 0
    """Required tests that are known to pass."""
    required: int = 0
    """Tests that must pass: `fail_to_pass` and `pass_to_pass`."""
    reason: str = ""
    """In one line, why it is not solved; empty where it is."""
    caught: str = ""
    """What was seen that an honest solution does not do, such as a decoy that passed; or empty."""
    failed: tuple[str, ...] = ()
    """The others: those that do not pass, and those of which it was not found out; all, where something was caught."""
    details: dict[str, str] = {}
    """Some of the tests that do not pass -> what was seen."""
    left_out: tuple[str, ...] = ()
    """Files that the agent made and that were not taken over, with the reason: at most some."""
    share: float | None = None
    """Where the tests write a number: that number, from 0 to 1."""
    seconds: float = 0.0
    """That grading took."""
