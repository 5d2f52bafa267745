"""What every test shares: one thread for torch, the folder of real data, and CI's refusal of skipped tests."""

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported anywhere: on two cores more threads only make small tensors slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell starts what it puts into the background with Ctrl-C ignored, and tests send it to themselves and to children.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIPS = os.environ.get("PALAESTRA_NO_SKIPS") == "1"

CANNOT_BE_INSTALLED = ("no real data", "no ALFRED trials", "no file system can be mounted", "takes root")
"""Reasons to skip that no installation mends: data that is not ours to give, and rights on the machine."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: `PALAESTRA_DATA`, or `../shared/data` beside the checkout; the test skips without it."""
    named = os.environ.get("PALAESTRA_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set PALAESTRA_DATA to its folder")
    return folder


def pytest_make_parametrize_id(val: object) -> str | None:
    """gzip writes the time into what it packs; two processes must have the same names for the same tests."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, so that no process is left with one at the end while the others idle."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def _refuse_skip(report: Any) -> Any:
    needless = not any(reason in str(report.longrepr) for reason in CANNOT_BE_INSTALLED)
    if report.skipped and needless and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and PALAESTRA_NO_SKIPS=1 allows no skips: {report.longrepr}"
    return report


if NO_SKIPS:

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
        """A skipped test fails, unless it is marked `gpu`."""
        report = yield
        return report if item.get_closest_marker("gpu") else _refuse_skip(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report() -> Generator[None, Any, Any]:
        """A file that skips itself as a whole fails too."""
        return _refuse_skip((yield))
