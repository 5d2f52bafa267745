"""The plug-in for verl 0.9, in verl's environment: loaded by its entry point, and tried on verl's batches."""

from typing import Any

import pytest
from support.named_interpreters import session

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return session("verl", tmp_path_factory.mktemp("verl"), installed=True)


def test_verl_finds_the_plug_in_by_itself(found: dict[str, Any]) -> None:
    assert found["registered"]["agent_loop"] == found["agent_loop"]["_target_"]
    assert found["registered"]["trainer"].startswith("palaestra.integrations.verl")
    assert found["trainer"] == "PPOTrainerSync"


@pytest.mark.parametrize("name", ["grpo", "epo", "empg", "aepo", "spear"])
def test_verls_micro_batches_add_up_to_our_gradient_and_loss(found: dict[str, Any], name: str) -> None:
    for iteration in found[name]:
        assert iteration["gradient_scale"] > 1e-3
        assert iteration["gradient"] <= 1e-5
        assert iteration["loss"] <= 1e-5
    assert "palaestra/surrogate" in found[name][0]["metrics"]


def test_epo_remembers_the_iterations_before(found: dict[str, Any]) -> None:
    assert "palaestra/smoothing" not in found["epo"][0]["metrics"]
    assert "palaestra/smoothing" in found["epo"][1]["metrics"]


def test_episodes_that_verl_has_no_room_for_overflow(found: dict[str, Any]) -> None:
    long, wide = found["room"]["long"], found["room"]["wide"]
    assert "overflow" in [each["status"] for each in long]
    assert all(each["prompt"] > 8 and each["sampled"] and each["response"] <= 50 for each in long)
    assert wide == [{"prompt": 1, "response": 1, "sampled": 0, "status": "overflow"}] * 8


def test_a_checkpoint_has_the_algorithms_memory(found: dict[str, Any]) -> None:
    memory = found["memory"]
    assert memory["auto"] == memory["path"] == memory["saved"] != memory["fresh"]
    assert "palaestra.json" in memory["missing"]


def test_what_verl_has_no_place_for_is_refused(found: dict[str, Any]) -> None:
    refused = found["refused"]
    assert "self_imitation.coef=0" in refused["spear"]
    assert "as a tree" in refused["branching"]
    assert "ppo_mini_batch_size" in refused["epochs"]


def test_tasks_become_verls_data_file(found: dict[str, Any]) -> None:
    assert found["dataset"] == 5
