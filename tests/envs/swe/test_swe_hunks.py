"""Hunks: taken back one at a time, and patches that git understands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.swe.hunks import hunks, lines, patch, revert
from palaestra.envs.swe.tree import read_folder, write

LINE = st.sampled_from(["a", "b", "c", "", "    return a", "x = 1\r", "-- minus", "+++ plus", "@@ -1,1 +1,1 @@", "\f"])
CONTENT = st.builds(
    lambda parts, end: "\n".join(parts) + ("\n" if end and parts else ""), st.lists(LINE, max_size=30), st.booleans()
)
PATHS = st.sampled_from(["a.py", "b/c.py", "b/d/e.txt"])
TREES = st.dictionaries(PATHS, CONTENT.map(str.encode), max_size=3)
OLD = "".join(f"{n}\n" for n in range(40))
NEW = OLD.replace("5\n", "five\n", 1).replace("20\n", "").replace("30\n", "30\nand more\n")


def test_changes_far_apart_are_hunks_of_their_own() -> None:
    found = hunks(OLD, NEW)
    assert [hunk.changed for hunk in found] == [2, 1, 1]
    assert found[0].body[:5] == (" 2\n", " 3\n", " 4\n", "-5\n", "+five\n")
    assert len({hunk.sha256 for hunk in found}) == 3


def test_one_hunk_is_taken_back_and_the_others_stay() -> None:
    assert revert(NEW, hunks(OLD, NEW)[1]) == NEW.replace("19\n21\n", "19\n20\n21\n")


def test_a_hunk_of_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not of this file"):
        revert("something\nelse\n", hunks(OLD, NEW)[0])


@given(CONTENT, CONTENT)
def test_taking_every_hunk_back_from_the_last_gives_the_old_file(old: str, new: str) -> None:
    content = new
    for hunk in reversed(hunks(old, new)):
        content = revert(content, hunk)
    assert content == old


@given(CONTENT, CONTENT, st.data())
def test_what_taking_a_hunk_back_changes_is_that_hunk(old: str, new: str, data: st.DataObject) -> None:
    found = hunks(old, new)
    if not found:
        assert old == new
        return
    hunk = data.draw(st.sampled_from(found))
    content = revert(new, hunk)
    assert content != new
    start, end = hunk.new_start, hunk.new_start + len(hunk.new)
    after = lines(new)
    assert lines(content)[:start] == after[:start]
    assert content.endswith("".join(after[end:]))


@given(CONTENT)
def test_lines_lose_nothing(content: str) -> None:
    assert "".join(lines(content)) == content


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(max_examples=25, deadline=None)
@given(old=TREES, new=TREES)
def test_git_makes_the_old_tree_into_the_new_with_a_patch(
    old: dict[str, bytes], new: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("patched")
    write(old, folder)
    text = patch(old, new)
    if text:
        subprocess.run(
            ["git", "apply", "--whitespace=nowarn"], cwd=folder, input=text.encode(), check=True, timeout=30,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        )  # fmt: skip
    assert read_folder(folder) == new


def test_binary_files_have_no_patch() -> None:
    with pytest.raises(ValueError, match="binary"):
        patch({"a": b"a"}, {"a": b"\0"})
    with pytest.raises(ValueError, match="codec"):
        patch({"a": b"\xff"}, {})
    assert patch({"a": b"\0"}, {"a": b"\0"}) == ""
