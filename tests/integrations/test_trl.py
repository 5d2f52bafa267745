"""TRL's GRPOTrainer with our episodes and algorithms, in TRL's environment: one session for everything it shows."""

from typing import Any

import pytest
from support.named_interpreters import session

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = ["epo", "epo in two steps", "empg", "aepo", "spear", "gspo, two epochs", "empg, TRL's loss", "kl"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return session("trl", tmp_path_factory.mktemp("trl"))


@pytest.mark.parametrize("name", RUNS)
def test_every_step_has_our_gradient_and_loss(found: dict[str, Any], name: str) -> None:
    run = found[name]
    assert run["steps"] == run["iterations"] * (2 if "two" in name else 1)
    assert run["gradient_scale"] > 1e-3  # so that equal is not both nothing
    assert run["gradient"] <= 1e-5
    assert run["loss"] <= 1e-5
    assert run["state"] <= 1e-5  # the algorithm's memory
    assert run["turns"] > 1


def test_terms_of_the_algorithms_are_logged(found: dict[str, Any]) -> None:
    assert {"palaestra/surrogate", "palaestra/entropy_bonus", "palaestra/smoothing"} <= set(found["epo"]["logged"])
    assert "palaestra/kl" in found["kl"]["logged"]
    assert any(name.startswith("palaestra/sil_") for name in found["spear"]["logged"])


def test_a_resumed_run_is_the_undisturbed_one(found: dict[str, Any]) -> None:
    assert found["resumed"] == {
        "difference": pytest.approx(0, abs=1e-5),
        "state": pytest.approx(0, abs=1e-5),
        "steps": 3,
    }


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_the_recipes(found: dict[str, Any], schedule: str) -> None:
    rates = found["rates"][schedule]
    assert rates["theirs"] == pytest.approx(rates["ours"], rel=1e-9)
    assert rates["ours"][0] < rates["ours"][7] == 1e-3  # it warms up for two iterations


def test_environments_are_tools_that_trl_understands(found: dict[str, Any]) -> None:
    tools = found["tools"]
    assert tools["schema"]["name"] == "act"
    assert tools["schema"]["parameters"]["required"] == ["command"]
    assert tools["first"]
    assert tools["seen"]
    assert tools["reward"] == 0.0


def test_what_trl_has_no_place_for_is_refused(found: dict[str, Any]) -> None:
    refused = found["refused"]
    assert "trains a critic" in refused["ppo"]
    assert "agent.context: full" in refused["window"]
    assert 'head="palaestra"' in refused["choice"]
    assert "within an iteration of 2 steps" in refused["within"]
    assert "multiple of 2" in refused["save_steps"]
