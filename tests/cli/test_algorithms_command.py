"""`palaestra algorithms`: what it lists is what recipes can use."""

import json
import re
from typing import Any

import pytest

from palaestra.cli.main import main
from palaestra.config import AlgorithmConfig, parse_recipe, to_dict
from palaestra.training.algorithms import ALGORITHMS, build_algorithm, resolve_algorithm
from palaestra.training.plugins import PLUGINS
from palaestra.training.policy_loss import POLICY_LOSSES


def listed(capsys: pytest.CaptureFixture[str], *names: str) -> list[dict[str, Any]]:
    assert main(["algorithms", *names, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_every_registered_name_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    by_seam: dict[str, list[str]] = {}
    fills: set[str] = set()
    for entry in listed(capsys):
        by_seam.setdefault(entry["seam"], []).append(entry["name"])
        fills |= set(entry["fills"])
    assert by_seam["algorithm"] == sorted(ALGORITHMS)
    assert by_seam["plug-in"] == sorted(PLUGINS)
    assert by_seam["policy loss"] == list(POLICY_LOSSES)
    assert set(by_seam) == {"algorithm", "plug-in", "advantage", "policy loss", "term"}
    assert {"reward", "filter", "advantage", "shaper", "gate", "term", "replay", "planner"} <= fills


def test_every_entry_has_a_source_and_an_override_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in listed(capsys):
        assert entry["summary"]
        assert re.search(r"arXiv \d{4}\.\d{5}|\d{4}, \w+|note", entry["source"])
        base = [] if "name=" in entry["use"] else ["algorithm.name=grpo"]
        recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', [*base, entry["use"]])
        assert set(entry["requires"]) <= build_algorithm(recipe).requires


def test_defaults_are_those_of_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in listed(capsys):
        if entry["seam"] != "algorithm":
            continue
        config = to_dict(resolve_algorithm(AlgorithmConfig(name=entry["name"])))
        for key, value in entry["defaults"].items():
            found: Any = config
            for part in key.split("."):
                found = found[part]
            expected = float("inf") if value == ".inf" else value
            assert (list(found) if isinstance(found, tuple) else found) == expected, key


def test_one_by_name_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "gspo"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("algorithm\n  gspo: ")
    assert "policy_loss=gspo clip_low=0.0003 clip_high=0.0004 dual_clip=.inf" in out
    assert "policy loss\n" in out
    assert "arXiv 2507.18071; algorithm.name=gspo" in out


def test_an_unknown_name_has_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "emgp"]) == 2
    assert "unknown algorithm or plug-in 'emgp'; did you mean 'empg'" in capsys.readouterr().err
