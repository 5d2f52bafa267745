"""The bars: what they show while a run plays, learns and evaluates."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from support.command import write_recipe

from palaestra.cli.progress import Bars
from palaestra.cli.training import TrainingBar
from palaestra.config import Recipe, load_recipe
from palaestra.training.run import train


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path))


def notes(bars: Bars) -> list[str]:
    return [str(task.fields["note"]) for task in bars._progress.tasks]


def test_the_bar_follows_the_evaluations(recipe: Recipe) -> None:
    bars = Bars()
    bars.console = Console(file=io.StringIO())
    bar = TrainingBar(bars, recipe)
    assert notes(bars) == ["starting"]
    shown: list[str] = []

    def watch(row: dict[str, object]) -> None:
        bar(row)
        shown.extend(note for note in notes(bars) if note not in shown)

    train(recipe, progress=watch)  # type: ignore[arg-type]
    for what in ("the base model", "validation", "on held-out tasks", "random", "the oracle"):
        assert f"evaluating {what}: 0/5" in shown
        assert any(note.startswith(f"evaluating {what}: 5/5, ") and note.endswith(" % solved") for note in shown)
    assert "evaluating the oracle: 5/5, 100 % solved" in shown
    assert any(note.startswith("success ") for note in shown)
    assert "iteration    0  validation" in bars.console.file.getvalue()  # type: ignore[attr-defined]


def test_every_episode_of_an_evaluation_is_told(recipe: Recipe) -> None:
    rows = []
    train(recipe, progress=rows.append)
    played = [(row["done"], row["total"]) for row in rows if row["kind"] == "playing" and row["tag"] == "rl"]
    assert played == [(done, 5) for done in range(6)]
    assert all(isinstance(row["iteration"], int) for row in rows)
