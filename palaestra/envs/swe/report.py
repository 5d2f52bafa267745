"""The report of `examiner.py`, read as what it is: bytes out of a process in which the agent's code ran."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from palaestra.sandboxes.commands import ExecResult

MOST_BYTES = 16 * 1024 * 1024
"""Of a report; a remote back end keeps no more."""


class Report(Struct, frozen=True):
    """What came of the tests, as far as it was told."""

    outcomes: dict[str, str]
    """Node id -> `passed`, or what else pytest calls it."""
    details: dict[str, str]
    """Node id, or file -> what was seen of a failure."""
    ended: bool
    """Whether the report is whole: its last line says how it ended, and the process ended so."""
    problem: str = ""
    """In one line, why it is not."""
    odd: str = ""
    """What an examiner does not do, such as a line that it did not write; or empty."""


class _Line(Struct):
    test: str = ""
    outcome: str = ""
    detail: str = ""
    file: str = ""
    end: int | None = None
    tests: int = 0


def read_report(result: ExecResult, nonce: str) -> Report:
    """The report in what an examiner printed. Never raises: what cannot be read is `odd`."""
    outcomes: dict[str, str] = {}
    details: dict[str, str] = {}
    last: _Line | None = None
    odd = "it printed more than a report can have" if result.stdout.dropped else ""
    for line in _lines(result.stdout.head + result.stdout.tail, nonce):
        if line is None or last is not None or line.test in outcomes:
            odd = odd or "the report has lines that the examiner did not write"
            continue
        if line.end is not None:
            last = line
        elif line.test:
            outcomes[line.test] = line.outcome
        if line.detail:
            details[line.test or line.file] = line.detail
    if last is not None and (last.tests != len(outcomes) or result.exit_code != last.end):
        odd = odd or "the report does not say how the tests ended"
    problem = "" if last is not None and result.ending == "exit" else _how(result)
    return Report(outcomes, details, not problem and not odd, problem, odd)


def _lines(printed: bytes, nonce: str) -> Iterator[_Line | None]:
    for text in printed.split(b"\n"):
        if not text:
            continue
        if not text.startswith(nonce.encode()):
            yield None
            continue
        try:
            yield msgspec.json.decode(text[len(nonce) :], type=_Line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            yield None


def _how(result: ExecResult) -> str:
    if result.ending == "exit":
        said = result.stderr.text.strip().rpartition("\n")[2][:200]
        return f"the tests ended before their end, with exit code {result.exit_code}{': ' if said else ''}{said}"
    return {
        "signal": "the tests were ended by a signal",
        "timeout": f"the tests took longer than {result.seconds:.0f} s",
        "flood": "the tests printed without end",
        "memory": "the tests took more memory than there is",
    }[result.ending]
