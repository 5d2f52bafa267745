"""The tutorial's blocks, run in order in an empty folder as a reader would."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


class Block(NamedTuple):
    language: str
    title: str
    text: str


class Transcript(NamedTuple):
    folder: Path
    outputs: dict[str, str]
    """By command line; `python N` for the N-th block of Python."""
    train_seconds: float
    """CPU seconds of the training command: other work on the machine does not count."""


def blocks() -> list[Block]:
    return [Block(*match.groups(default="")) for match in FENCE.finditer(PAGE.read_text(encoding="utf-8"))]


def commands() -> Iterator[tuple[str, list[str]]]:
    """What a reader would run, with its name; titled blocks are written to files by the fixture."""
    scripts = 0
    for block in blocks():
        if block.language == "python" and not block.title:
            scripts += 1
            yield f"python {scripts}", [sys.executable, "-c", block.text]
        elif block.language == "console":
            for line in block.text.splitlines():
                assert line.startswith("$ palaestra "), line
                yield line[2:], [sys.executable, "-m", *line[2:].split()]


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    folder = tmp_path_factory.mktemp("tutorial")
    for block in blocks():
        if block.title:
            with open(folder / block.title, "a", encoding="utf-8") as file:
                file.write(block.text)
    root = Path(__file__).parents[2]
    environ = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    outputs, seconds = {}, 0.0
    for name, command in commands():
        before = children_seconds()
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{name}\n{done.stdout}\n{done.stderr}"
        outputs[name] = done.stdout
        if name == "palaestra train hunt.yaml --import hunt.py":
            seconds = children_seconds() - before
    return Transcript(folder, outputs, seconds)


def test_the_page_has_the_blocks_that_matter() -> None:
    found = [(block.language, block.title) for block in blocks()]
    assert found.count(("python", "hunt.py")) == 2
    assert ("yaml", "hunt.yaml") in found
    assert sum(name.startswith("palaestra ") for name, _ in commands()) >= 5


def test_the_environment_has_about_twenty_lines() -> None:
    [source] = [b.text for b in blocks() if b.title == "hunt.py" and "class Treasure" in b.text]
    body = source[source.index("@register") :]
    assert 15 <= len([line for line in body.splitlines() if line.strip()]) <= 26


def test_the_check_prints_what_the_page_says(transcript: Transcript) -> None:
    output = transcript.outputs["palaestra check hunt/Treasure-v0 --import hunt.py"]
    [shown] = [block.text for block in blocks() if "determinism" in block.text and block.language == "text"]
    assert [line for line in shown.splitlines() if line != "  ..." and line not in output.splitlines()] == []


def test_the_random_agent_rarely_wins(transcript: Transcript) -> None:
    wins = int(re.search(r"in (\d+) of 100", transcript.outputs["python 1"]).group(1))  # type: ignore[union-attr]
    assert 0 <= wins <= 12


def test_training_really_learns(transcript: Transcript) -> None:
    summary = json.loads((transcript.folder / "runs/hunt/summary.json").read_text())
    assert summary["success_oracle"]["value"] == 1.0
    assert summary["success_warm"]["high"] < 0.3
    assert summary["success_rl"]["low"] > 0.7
    assert "after" in transcript.outputs["python 2"]


def test_training_is_quick(transcript: Transcript) -> None:
    assert 0 < transcript.train_seconds < 60


def test_the_run_has_its_report(transcript: Transcript) -> None:
    assert "<html" in (transcript.folder / "runs/hunt/report.html").read_text(encoding="utf-8")[:500].lower()


def test_an_override_reaches_the_run(transcript: Transcript) -> None:
    summary = json.loads((transcript.folder / "runs/grpo/summary.json").read_text())
    assert (summary["algorithm"], summary["seed"], summary["iterations"]) == ("grpo", 1, 3)
