"""A plug-in of pytest that writes what came of each test, one JSON line a test, to the file that a variable names.

It runs beside the code under test and believes it, so it is for finding out which tests a package's own versions pass,
never for judging an agent's work. It imports only the standard library, because it is copied to where pytest runs.
"""

import json
import os
from typing import Any

VARIABLE = "PALAESTRA_OUTCOMES"

_seen: dict[str, str] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Note a phase of a test: it passed if its call did and no phase failed, was skipped, or was to fail."""
    outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    if outcome != "passed":
        _seen[report.nodeid] = outcome
    elif report.when == "call":
        _seen.setdefault(report.nodeid, "passed")


def pytest_sessionfinish() -> None:
    """Write them all."""
    with open(os.environ[VARIABLE], "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps([id, outcome]) + "\n" for id, outcome in _seen.items())
