"""The recipes of the suites, cut short: a warm start from nothing, one iteration, one evaluation."""

import json
from pathlib import Path

import pytest

from palaestra.cli.main import main
from palaestra.errors import MissingExtraError, require

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NEEDS = {
    "math": ("math_verify", "math"),
    "scienceworld": ("scienceworld", "scienceworld"),
    "textworld": ("textworld", "textworld"),
    "webshop": ("tantivy", "webshop"),
}
FEW = {
    "textworld": [f"tasks.{split}=textworld/treasure-easy:{split}[:2]" for split in ("train", "validation", "test")],
}
"""Each of its games is generated first."""
SHORT = [
    *("model.threads=1", "warm_start.episodes=4", "warm_start.epochs=1", "rollout.groups=1", "rollout.group_size=2"),
    *("budget.iterations=1", "evaluation.every=0", "evaluation.test_episodes=2", "tasks.max_turns=2"),
]


@pytest.mark.parametrize("name", ["math", "scienceworld", "sokoban", "textworld", "webshop"])
def test_a_suite_trains_from_nothing(name: str, tmp_path: Path) -> None:
    try:
        require(*NEEDS.get(name, ("palaestra", "")))
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert main(["train", name, f"out={tmp_path / 'run'}", *SHORT, *FEW.get(name, [])]) == 0
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert row["statuses"] == {"ok": 2}
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
