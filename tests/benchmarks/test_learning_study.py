"""The learning study: what it runs, what it keeps of a run, and what it says of them."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learning import report, results
from benchmarks.learning.claims import CLAIMS, findings
from benchmarks.learning.run import main as run_study
from benchmarks.learning.study import STUDY, Study, finished, jobs, load_study
from palaestra.config import load_recipe
from palaestra.errors import ConfigError, DataError
from palaestra.training.algorithms import build_algorithm

ROOT = Path(__file__).resolve().parents[2]
TINY = """
name: tiny
tasks: {train: "alfworld/small:train", test: "alfworld/small:test", max_turns: 3}
model: {reference: palaestra-tiny, threads: 1}
agent: {max_tokens: 8}
rollout: {groups: 2, group_size: 2}
budget: {iterations: 2}
evaluation: {every: 0, test_episodes: 2}
checkpoint: {every: 1, keep: 1}
"""


def write_study(folder: Path, recipe: str = TINY, seeds: int = 1) -> Path:
    (folder / "tiny.yaml").write_text(recipe)
    path = folder / "study.yaml"
    settings = "{grpo: [algorithm.name=grpo], epo: [algorithm.name=epo]}"
    path.write_text(f"seeds: {seeds}\nenvironments: {{tiny: tiny.yaml}}\nsettings: {settings}\n")
    return path


def record(environment: str, setting: str, seed: int, *, success: float, rough: float = 0.02) -> dict[str, Any]:
    """Of an imaginary run of twelve iterations whose entropy goes up and down by `rough` on its way down."""
    rng = np.random.default_rng([seed, len(setting)])
    entropy = [0.6 - 0.02 * k + rough * (-1) ** k for k in range(12)]
    columns: dict[str, Any] = {
        "success": [0.3 + 0.04 * k for k in range(12)],
        "entropy": entropy,
        "entropy_by_turn": [[h, h / 2, None if k % 2 else h / 3][: 2 + k % 2] for k, h in enumerate(entropy)],
    }
    if setting in ("aepo", "arpo"):
        columns["branch_top3"] = [None, *[0.7 if setting == "aepo" else 0.9] * 11]
    return {
        "environment": environment,
        "setting": setting,
        "seed": seed,
        "weights": "abc" * 20,
        "conditions": {"recipe": {"name": environment}, "overrides": []},
        "base": {"value": 0.3, "low": 0.2, "high": 0.4, "n": 100},
        "test": {"value": success + float(rng.normal(0, 0.002)), "low": 0.0, "high": 1.0, "n": 100},
        "iterations": columns,
        "entropy_law": {"a": 0.5, "b": 1.4, "ceiling": 0.9, "r2": 0.6},
        "train_seconds": 100.0,
        "wall_seconds": 120.0,
    }


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two environments; EPO is steadier than GRPO, EMPG no better, SPEAR worse, AEPO's branches more even."""
    settings = {name: [] for name in load_study().settings}
    made = Study(seeds=5, environments={"a": "a.yaml", "b": "b.yaml"}, settings=settings, folder=tmp_path)
    success = {"spear": 0.5, "epo": 0.7}
    for environment in made.environments:
        (made.data / environment).mkdir(parents=True)
        for setting in settings:
            for seed in range(5):
                one = record(
                    environment,
                    setting,
                    seed,
                    success=success.get(setting, 0.6),
                    rough=0.005 if setting == "epo" else 0.03,
                )
                (made.data / environment / f"{setting}-{seed}.json").write_text(json.dumps(one))
    return made


def test_every_run_of_the_study_has_an_algorithm_that_can_be_built() -> None:
    every = jobs(load_study())
    assert len({job.name for job in every}) == len(every) >= 5 * 7 * 2
    for job in every:
        if job.seed == 0:
            assert build_algorithm(load_recipe(job.recipe, [*job.overrides, f"seed={job.seed}"]))


def test_settings_of_an_environment_differ_in_the_algorithm_alone() -> None:
    assert all(change.startswith("algorithm.") for changes in load_study().settings.values() for change in changes)
    assert {claim.ours for claim in CLAIMS} | {claim.theirs for claim in CLAIMS} <= set(load_study().settings)


def test_runs_come_seed_by_seed() -> None:
    seeds = [job.seed for job in jobs(load_study(), seeds=3)]
    assert seeds == sorted(seeds)


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="no setting 'grop'"):
        jobs(load_study(), settings=["grop"])
    with pytest.raises(ConfigError, match="no environment 'x'"):
        jobs(load_study(), ["x"])


def test_a_record_stands_only_under_the_conditions_that_it_was_made_with(tmp_path: Path) -> None:
    job = jobs(load_study(write_study(tmp_path)))[0]
    assert not finished(job)
    job.record.parent.mkdir(parents=True)
    job.record.write_text(json.dumps({"conditions": job.conditions()}))
    assert finished(job)
    (tmp_path / "tiny.yaml").write_text(TINY.replace("iterations: 2", "iterations: 3"))
    with pytest.raises(DataError, match="made with other settings; remove it to run tiny/grpo-0 again"):
        finished(job)
    job.record.write_text("{")
    with pytest.raises(DataError, match="is no record of a run"):
        finished(job)


def test_the_findings_are_those_that_the_records_were_made_for(study: Study) -> None:
    found = {(f.claim.ours, f.claim.theirs, f.claim.text): f.verdict for f in findings(results.load_results(study))}
    assert found["epo", "grpo", "steadier entropy"] == "reproduces"
    assert found["epo", "grpo", "higher success"] == "reproduces"
    assert found["empg", "grpo", "faster learning"] == "cannot be told"
    assert found["aepo", "arpo", "branches spread more evenly"] == "reproduces"
    assert found["spear", "grpo", "higher success"] == "the opposite"
    assert len(findings(results.load_results(study))) == 2 * len(CLAIMS)


def test_what_began_with_other_weights_cannot_stand_side_by_side(study: Study) -> None:
    path = study.data / "a" / "epo-3.json"
    path.write_text(path.read_text().replace("abc", "abd"))
    with pytest.raises(DataError, match="different weights"):
        results.load_results(study)


def test_scores_by_hand() -> None:
    one = record("a", "grpo", 0, success=0.5)
    one["iterations"]["entropy"] = [0.4, 0.2, 0.2, 0.4]
    assert results.entropy_roughness(one) == pytest.approx((0.2 + 0 + 0.2) / 3 / 0.3)
    assert results.late_entropy(one) == pytest.approx(1.0)
    assert results.middle_entropy(one) == pytest.approx(0.5)
    one["iterations"]["entropy_by_turn"] = [[0.4, None], [0.2, 0.3, 9.0], [0.2, 0.3]]
    assert results.turn_roughness(one) == pytest.approx((0.2 + 0) / 2 / (0.8 / 3))  # the second turn has a gap
    assert np.isnan(results.branch_share(one))


def test_the_page_gets_every_table(study: Study) -> None:
    parts = report.sections(results.load_results(study))
    page = report.fill((ROOT / report.PAGE).read_text("utf-8"), parts)
    assert report.fill(page, parts) == page
    assert "| EPO | steadier entropy | `a` |" in page
    assert "**the opposite**" in page
    table = next(block for block in page.split("\n\n") if block.startswith("| Setting") and "`spear`" in block)
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(DataError, match="no place for the part 'runs'"):
        report.fill("nothing", {"runs": "x"})


def test_the_pictures_are_svg_files_with_a_line_a_setting(study: Study) -> None:
    drawn = report.pictures(results.load_results(study))
    assert len(drawn) == 8
    for svg in drawn.values():
        ElementTree.fromstring(svg)
    assert all(f"s-{name}" in drawn["a-success"] for name in study.settings)


def test_without_runs_it_says_how_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(report, "load_study", lambda: load_study(write_study(tmp_path)))
    assert report.main(["--print"]) == 1
    assert "python -m benchmarks.learning.run" in capsys.readouterr().err


def test_the_list_says_what_is_to_be_done(tmp_path: Path, capsys: Any) -> None:
    assert run_study(["--study", str(write_study(tmp_path)), "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["to do  tiny/grpo-0", "to do  tiny/epo-0"]
    assert run_study(["--study", str(write_study(tmp_path)), "--settings", "x"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    path = write_study(tmp_path, TINY.replace("iterations: 2", "iterations: 30"))
    command = [sys.executable, "-m", "benchmarks.learning.run", "--study", str(path), "--runs", str(tmp_path / "runs")]
    command += ["--settings", "grpo", "--workers", "1"]
    # As a shell does that puts it into the background: Ctrl-C is ignored, and that is inherited.
    background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    process = subprocess.Popen(background, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "tiny" / "grpo-0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 3):
        time.sleep(0.1)
    process.send_signal(number)
    assert "the same command goes on" in process.communicate(timeout=120)[0]
    assert process.returncode == 130
    before = metrics.read_bytes().splitlines()
    assert 3 <= len(before) < 30
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    kept = json.loads((path.parent / "data" / "tiny" / "grpo-0.json").read_text())
    assert len(kept["iterations"]["success"]) == 30
    assert metrics.read_bytes().splitlines()[: len(before)] == before
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "tiny/grpo-0:" not in again.stdout  # finished: skipped


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    path.write_text(path.read_text().replace("algorithm.name=grpo", "algorithm.name=gpro"))
    command = [sys.executable, "-m", "benchmarks.learning.run", "--study", str(path), "--runs", str(tmp_path / "runs")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert "tiny/grpo-0 failed" in found.stdout
    assert "gpro" in found.stdout
    assert (path.parent / "data" / "tiny" / "epo-0.json").exists()


def test_the_study_is_where_the_documentation_says() -> None:
    assert STUDY.is_file()
    assert "python -m benchmarks.learning.run" in (ROOT / report.PAGE).read_text("utf-8")
