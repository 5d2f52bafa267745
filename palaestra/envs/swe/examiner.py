"""Runs a task's tests with pytest and reports each outcome: sent into a sandbox as the source of `python3 -c`.

It reads a `Request` as JSON from standard input, and writes the report where standard output was, which the tests then
no longer have: a line of JSON for each test, and one for the end, each after the nonce. It says what it sees from
inside of a process in which code under test runs too. Whoever reads the report has to know that this code may have
written it (see `palaestra.envs.swe.grading`).
"""

from __future__ import annotations

import sys

# Nothing is imported from the folder that the process was started in, and from those under test only after this program
# and pytest have what they need.
sys.path[:] = [entry for entry in sys.path if entry]

import json  # noqa: E402
import os  # noqa: E402
from typing import Any, Callable, Dict, List, TypedDict  # noqa: E402, UP035

Tell = Callable[[Dict[str, Any]], None]  # noqa: UP006
DETAIL, DETAILS = 2000, 1000000
"""Characters told of a failure, and of all together."""


class Request(TypedDict):
    """What to run, and how."""

    nonce: str
    folder: str
    """The repository."""
    sources: List[str]  # noqa: UP006
    """Folders with code under test."""
    tools: List[str]  # noqa: UP006
    """Folders with pytest and what the tests import."""
    path: str
    """PYTHONPATH of programs that the tests start."""
    arguments: List[str]  # noqa: UP006
    """Of pytest."""


def main() -> None:
    """Run the tests and end the process, without giving anything a chance that waits for its end."""
    request: Request = json.loads(sys.stdin.buffer.read())
    tell = _reporting(request["nonce"])
    _import_pytest(request)
    os.environ["PYTHONPATH"] = request["path"]
    os.chdir(request["folder"])
    import pytest

    reporter = Reporter(tell)
    code = int(pytest.main(request["arguments"], plugins=[reporter]))
    tell({"end": code, "tests": reporter.count})
    os._exit(code)


def _reporting(nonce: str) -> Tell:
    """Keep standard output for the report; what is printed goes to standard error, and there is nothing to read."""
    report = os.dup(1)  # not inherited by programs that the tests start
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    dumps, write = json.dumps, os.write

    def tell(said: Dict[str, Any]) -> None:  # noqa: UP006
        line = (nonce + dumps(said) + "\n").encode()
        while line:
            line = line[write(report, line) :]

    return tell


def _import_pytest(request: Request) -> None:
    """Import it while nothing else can be imported; then let the code under test stand behind Python's own modules.

    Where pytest is to be found nowhere else, it is itself what is under test.
    """
    given = request["sources"] + request["tools"]
    own = [entry for entry in sys.path if entry not in given]
    sys.path[:] = own + request["tools"]
    try:
        __import__("pytest")
    except ModuleNotFoundError:
        sys.modules.pop("pytest", None)
    site = [entry for entry in own if entry.endswith(("site-packages", "dist-packages"))]
    standard = [entry for entry in own if entry not in site]
    sys.path[:] = standard + request["sources"] + request["tools"] + site


class Reporter:
    """A plug-in of pytest: one line for each test, when all of its phases are over."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.count = 0
        self.left = DETAILS
        self.phases: Dict[str, Dict[str, str]] = {}  # noqa: UP006
        self.details: Dict[str, str] = {}  # noqa: UP006

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note one phase."""
        outcome = "expected to fail" if hasattr(report, "wasxfail") else report.outcome
        self.phases.setdefault(report.nodeid, {})[report.when] = outcome
        if outcome == "failed":
            self.details.setdefault(report.nodeid, self.detail(report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tell of the test."""
        phases, detail = self.phases.pop(nodeid, {}), self.details.pop(nodeid, "")
        odd = [outcome for outcome in phases.values() if outcome != "passed"]
        outcome = odd[0] if odd else "passed" if len(phases) == 3 else "incomplete"
        self.count += 1
        self.tell({"test": nodeid, "outcome": outcome, "detail": detail})

    def pytest_collectreport(self, report: Any) -> None:
        """Tell of a file that cannot be imported."""
        if report.outcome == "failed":
            self.tell({"file": report.nodeid, "detail": self.detail(report)})

    def detail(self, report: Any) -> str:
        """What is told of a failure."""
        text = str(report.longrepr)[-min(DETAIL, self.left) :] if self.left else ""
        self.left -= len(text)
        return text


if __name__ == "__main__":
    main()
