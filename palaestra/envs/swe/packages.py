"""The packages whose release histories the suite is made from, and what to know of each to make tasks of it.

All are pure Python with permissive licences, carry their tests in their source distributions, and test in seconds. All
tasks of a package are in one split, so that an agent is evaluated on code that training never showed it.
"""

from __future__ import annotations

from msgspec import Struct

RUNNER = (
    "pytest-8.4.2-py3-none-any.whl",
    "pluggy-1.6.0-py3-none-any.whl",
    "iniconfig-2.1.0-py3-none-any.whl",
    "packaging-25.0-py3-none-any.whl",
    "pygments-2.19.2-py3-none-any.whl",
)
"""Files on the index: pytest and what it needs."""


class Source(Struct, frozen=True, kw_only=True):
    """One package, as a person describes it. The fields are those of `manifest.Package`."""

    project: str
    licence: str
    split: str
    versions: tuple[str, ...]
    """Neighbours make tasks; from the earliest."""
    source: tuple[str, ...]
    tests: tuple[str, ...] = ("tests",)
    path: str = ""
    notes: str = ""
    """Empty: no task is made of a whole release."""
    requires: tuple[str, ...] = ()
    """Files on the index, each with `:FOLDER` for a folder of a source distribution."""
    tries: int = 6
    """Hunks of two neighbouring releases that are tried, at most."""


PACKAGES = (
    Source(
        project="boltons",
        tries=16,
        licence="BSD-3-Clause",
        split="train",
        versions=("23.1.0", "23.1.1", "24.0.0", "24.1.0", "25.0.0"),
        source=("boltons",),
        notes="CHANGELOG.md",
    ),
    Source(
        project="cachetools",
        tries=16,
        licence="MIT",
        split="train",
        versions=("5.0.0", "5.1.0", "5.2.0", "5.2.1", "5.3.0", "5.3.1", "5.3.2", "5.3.3", "5.4.0", "5.5.0", "5.5.2"),
        source=("src/cachetools",),
        path="src",
        notes="CHANGELOG.rst",
    ),
    Source(
        project="click",
        tries=16,
        licence="BSD-3-Clause",
        split="test",
        versions=("8.1.0", "8.1.2", "8.1.3", "8.1.4", "8.1.5", "8.1.6", "8.1.7", "8.1.8"),
        source=("src/click",),
        path="src",
        notes="CHANGES.rst",
    ),
    Source(
        project="parse",
        tries=16,
        licence="MIT",
        split="validation",
        versions=("1.20.0", "1.20.1", "1.20.2"),
        source=("parse.py",),
        notes="README.rst",
    ),
    Source(
        project="sqlparse",
        licence="BSD-3-Clause",
        split="train",
        versions=("0.4.2", "0.4.3", "0.4.4", "0.5.0", "0.5.1", "0.5.2", "0.5.3"),
        source=("sqlparse",),
        notes="CHANGELOG",
    ),
    Source(
        project="xmltodict",
        licence="MIT",
        split="test",
        versions=("0.12.0", "0.13.0", "0.14.0", "0.14.1", "0.14.2", "0.15.0", "0.15.1", "1.0.0", "1.0.2"),
        source=("xmltodict.py",),
    ),
)
