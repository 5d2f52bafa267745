"""The section of a version in release notes of every fashion; problem statements with the code of failing tests."""

from __future__ import annotations

import pytest

from palaestra.envs.swe.notes import MOST, section
from palaestra.envs.swe.statement import for_hunk, for_release, source_of

STYLES = {
    "hashes": "# Changes\n\n## 1.2.0\n\n- one\n\n## 1.1.0\n\n- older\n",
    "dates": "## [1.2.0] - 2024-01-01\n- one\n## [1.1.0] - 2023-01-01\n- older\n",
    "rules": "Changes\n=======\n\nVersion 1.2.0\n-------------\n\n- one\n\nVersion 1.1.0\n-------------\n\n- older\n",
    "release": "Release 1.2.0 (Oct 07, 2021)\n----------------------------\n\n- one\n\nRelease 1.1.0\n---\n- older\n",
    "v": "v1.2.0 (2024-01-01)\n===================\n\n- one\n\nv1.1.0\n======\n\n- older\n",
    "list": "Notes\n\n- 1.2.0 - one\n- 1.1.0 older\n",
    "bare": "1.2.0\n- one\n\n1.1.0\n- older\n",
    "windows": "1.2.0\r\n-----\r\n\r\n- one\r\n\r\n1.1.0\r\n-----\r\n- older\r\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_a_section_is_found_by_its_heading(style: str) -> None:
    found = section(STYLES[style], "1.2.0")
    assert found.endswith("one")
    assert "older" not in found
    assert section(STYLES[style], "1.1.0").endswith("older")


@pytest.mark.parametrize("version", ["1.2", "1.2.0.1", "2.0", "1.2.00", ""])
def test_another_version_has_no_section(version: str) -> None:
    assert all(section(notes, version) == "" for notes in STYLES.values())


def test_a_version_that_is_mentioned_is_no_heading() -> None:
    notes = "1.2.0\n-----\nSince 1.1.0 this works.\n    1.1.0 did not.\n"
    assert section(notes, "1.1.0") == ""
    assert section(notes, "1.2.0").count("\n") == 1


def test_a_section_has_an_end() -> None:
    assert len(section("1.0.0\n" + "x" * 3 * MOST, "1.0.0")) == MOST


TESTS = {
    "tests/test_a.py": b"""
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_one(n):
    assert n

class TestAll:
    def test_two(self):
        assert True

    async def test_three(self):
        assert True
""",
    "tests/__init__.py": b"""
class Base:
    def test_base(self):
        assert 1

class Mixin(Base):
    pass
""",
    "tests/test_b.py": b"""
import tests
from tests import Mixin

class TestB(Mixin):
    pass

class TestC(tests.Base, object):
    def test_base(self):
        assert 2

class TestD(TestC, TestD):
    pass
""",
    "tests/broken.py": b"def (",
    "tests/latin.py": b"\xff",
}


def test_the_code_of_a_test() -> None:
    assert source_of(TESTS, "tests/test_a.py::test_one[1]").startswith(
        '@pytest.mark.parametrize("n", [1, 2])\ndef test'
    )
    assert source_of(TESTS, "tests/test_a.py::TestAll::test_two") == "def test_two(self):\n    assert True"
    assert source_of(TESTS, "tests/test_a.py::TestAll::test_three").startswith("async def")


def test_the_code_of_a_test_that_is_inherited() -> None:
    assert source_of(TESTS, "tests/test_b.py::TestB::test_base").endswith("assert 1")
    assert source_of(TESTS, "tests/test_b.py::TestC::test_base").endswith("assert 2")
    assert source_of(TESTS, "tests/test_b.py::TestD::test_base").endswith("assert 2")
    assert source_of(TESTS, "tests/test_b.py::TestD::test_none") == ""


@pytest.mark.parametrize(
    "id", ["tests/test_a.py", "tests/test_a.py::test_four", "tests/broken.py::a", "tests/latin.py::a", "no.py::a", "::"]
)
def test_a_test_that_cannot_be_found_has_no_code(id: str) -> None:
    assert source_of(TESTS, id) == ""


def test_the_statement_names_every_failing_test_and_shows_some() -> None:
    ids = ["tests/test_a.py::TestAll::test_two", "tests/test_a.py::test_one[1]", "tests/test_a.py::test_one[2]"]
    text = for_hunk("alpha", "1.0", TESTS, ids, "pytest")
    assert all(f"- `{id}`" in text for id in ids)
    assert text.count("def test_one") == 1
    assert "These tests fail" in text
    alone = for_hunk("alpha", "1.0", {}, ids[:1], "pytest")
    assert "This test fails" in alone
    assert "```" not in alone


def test_the_statement_of_a_release_has_its_notes_and_no_test() -> None:
    text = for_release("alpha", "1.0", "- one", "pytest tests")
    assert "alpha 1.0" in text
    assert "\n\n- one\n\n" in text
    assert "pytest tests" in text
