"""The program that looks at files and changes them, run as in a sandbox: by a bare interpreter, in a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from palaestra.envs.swe.tools import INSIDE


def ask(folder: Path, do: str, **arguments: Any) -> dict[str, Any]:
    question = json.dumps({"do": do, **arguments})
    command = [sys.executable, "-I", "-S", "-c", INSIDE]
    done = subprocess.run(command, input=question, capture_output=True, text=True, cwd=folder, timeout=30, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_file_is_shown_with_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\nthree\n")
    assert ask(tmp_path, "view", path="a.py") == {"ok": True, "text": "     1\tone\n     2\ttwo\n     3\tthree"}
    part = ask(tmp_path, "view", path="a.py", first=2, last=2)["text"]
    assert part == "     2\ttwo\n(lines 2-2 of 3)"


def test_a_long_file_is_shown_as_far_as_it_fits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(10_000)))
    text = ask(tmp_path, "view", path="a.txt", most=1000)["text"]
    assert len(text) < 1100
    assert text.endswith("of 10000)")
    (tmp_path / "wide.txt").write_text("x" * 5000)
    assert "(4600 characters more)" in ask(tmp_path, "view", path="wide.txt")["text"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [("b", b"\0\1", "binary file of 2 bytes"), ("e", b"", "is empty"), ("gone", None, "No such file")],
)
def test_what_cannot_be_shown_says_why(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert why in ask(tmp_path, "view", path=name)["text"]


def test_no_fifo_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert not ask(tmp_path, "view", path="fifo")["ok"]
    assert not ask(tmp_path, "search", pattern="x")["ok"]


def test_lines_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n2\n")
    assert "has 2 lines" in ask(tmp_path, "view", path="a", first=3)["text"]
    assert "comes before" in ask(tmp_path, "view", path="a", first=2, last=1)["text"]


def test_a_folder_is_listed_two_levels_deep(tmp_path: Path) -> None:
    for name in ("src/deep/er", "src/a.py", "README", "new\nline", ".git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    text = ask(tmp_path, "view", path=".")["text"]
    assert text.split("\n") == [".git/ (not shown)", "README", "new\\nline", "src/", "src/a.py", "src/deep/"]


def test_names_and_lines_are_found(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "order.py").write_text("def other():\n    return order()\n")
    (tmp_path / "blob").write_bytes(b"\0order")
    found = ask(tmp_path, "search", pattern="order")
    assert found["text"] == (
        "Files whose names match (1):\nsrc/order.py\n\nLines that match (1, in 1 file):\nsrc/order.py:2: return order()"
    )
    assert found["results"] == 2
    assert not ask(tmp_path, "search", pattern="nowhere")["ok"]
    assert "searched as plain text" in ask(tmp_path, "search", pattern="order(")["text"]
    assert "does not exist" in ask(tmp_path, "search", pattern="x", path="gone")["text"]


def test_text_that_occurs_once_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("a = 1\nb = 2\n")
    file.chmod(0o755)
    answer = ask(tmp_path, "edit", path="a.py", blocks=[["b = 2\n", "b = 3\nc = 4\n"]])
    assert answer["ok"]
    assert "     2\tb = 3\n     3\tc = 4" in answer["text"]
    assert file.read_text() == "a = 1\nb = 3\nc = 4\n"
    assert file.stat().st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path) == ["a.py"]


@pytest.mark.parametrize(
    ("old", "why"),
    [
        ("x\n", "3 times, at lines 1, 2, 4"),
        ("  y\n", "other blanks"),
        ("retrun value\n", "     5\treturn value"),
        ("nothing like it at all", "No line is like it"),
        ("", "cannot be empty"),
    ],
)
def test_an_edit_that_cannot_be_made_says_why_and_changes_nothing(tmp_path: Path, old: str, why: str) -> None:
    text = "x\nx\n y\nx\nreturn value\n"
    (tmp_path / "a").write_text(text)
    answer = ask(tmp_path, "edit", path="a", blocks=[["return value\n", "return 1\n"], [old, "new"]])
    if old == "retrun value\n":  # the first block has changed the line in question
        answer = ask(tmp_path, "edit", path="a", blocks=[[old, "new"]])
    assert not answer["ok"]
    assert why in answer["text"]
    assert (tmp_path / "a").read_text() == text


def test_files_are_made(tmp_path: Path) -> None:
    assert ask(tmp_path, "edit", path="new/a.py", blocks=[["", "x = 1\n"]])["ok"]
    assert (tmp_path / "new" / "a.py").read_text() == "x = 1\n"
    assert "does not exist" in ask(tmp_path, "edit", path="b", blocks=[["x", "y"]])["text"]


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "dos").write_bytes(b"a\r\nb\r\n")
    assert ask(tmp_path, "edit", path="dos", blocks=[["b\n", "c\nd\n"]])["ok"]
    assert (tmp_path / "dos").read_bytes() == b"a\r\nc\r\nd\r\n"
    (tmp_path / "last").write_bytes(b"a\nb")
    assert ask(tmp_path, "edit", path="last", blocks=[["b\n", "c\n"]])["ok"]
    assert (tmp_path / "last").read_bytes() == b"a\nc"


def test_a_link_is_edited_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a\n")
    (tmp_path / "link").symlink_to("real")
    assert ask(tmp_path, "edit", path="link", blocks=[["a", "b"]])["ok"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "b\n"


def test_what_is_no_utf_8_is_not_spoiled(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    assert "not UTF-8" in ask(tmp_path, "edit", path="latin", blocks=[["caf", "tea"]])["text"]
    assert (tmp_path / "latin").read_bytes() == b"caf\xe9\n"
