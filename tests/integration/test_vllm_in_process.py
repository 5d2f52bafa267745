"""vLLM in the process that plays, in an interpreter of its own: one start for everything it shows."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.vllm_models import smollm2_folder, vllm_python

from palaestra.envs.isolation.named import environ_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SESSION = Path(__file__).parents[1] / "support" / "vllm_session.py"
STOP = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `vllm_session.py` printed."""
    python, folder = vllm_python(), tmp_path_factory.mktemp("vllm")
    command = [python, str(SESSION), str(smollm2_folder()), str(folder)]
    environ = {**environ_of("vllm"), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=850, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_log_probs_and_entropies_are_the_learners(found: dict[str, Any]) -> None:
    assert max(map(max, found["parity"])) <= 1e-4
    for answer in found["answers"]:
        assert len(answer["ids"]) == len(answer["logprobs"]) == len(answer["entropies"]) >= 1
        assert answer["finish"] == ("stop" if answer["ids"][-1] == STOP else "length")
    assert found["greedy"]


def test_a_completion_depends_on_its_seed_only(found: dict[str, Any]) -> None:
    alone, among_others = found["repeats"]
    assert alone == among_others


def test_constraints_are_obeyed_and_measured(found: dict[str, Any]) -> None:
    for answer in found["constraints"]:
        assert answer["ids"] in ([5, 600, STOP], [5, 7, 9, STOP], [800, STOP])
        assert answer["allowed"][0] == [5, 800]
        assert answer["finish"] == "stop"
    assert max(map(max, found["constraint errors"])) <= 1e-4


def test_cuts_draw_the_likeliest_and_report_the_whole_distribution(found: dict[str, Any]) -> None:
    assert max(map(max, found["cut errors"])) <= 1e-4
    assert max(found["ranks"]) <= 2


def test_the_window_ends_what_vllm_completes(found: dict[str, Any]) -> None:
    full, close = found["windows"]
    assert (full["ids"], full["finish"]) == ([], "length")
    assert len(close["ids"]) <= 2
    assert "the prompt is empty" in found["empty"]


def test_a_failing_processor_ends_nothing(found: dict[str, Any]) -> None:
    sampled, after = found["guard"]
    assert sampled == 3
    assert max(after) <= 1e-4
    assert found["cancelled"] == [True]


def test_adapters_are_swapped_under_a_name_per_version(found: dict[str, Any]) -> None:
    assert found["adapter versions"] == [0, 1, 2]
    assert max(map(max, found["adapter errors"])) <= 1e-4
    assert found["adapter differs"] > 0.01


def test_new_weights_reach_a_tied_output_head(found: dict[str, Any]) -> None:
    assert found["new weights"] == [3, 3, None]
    assert max(found["new weights errors"]) <= 1e-4


def test_new_weights_in_the_middle_of_a_completion(found: dict[str, Any]) -> None:
    told = found["in flight"]
    assert len(told["versions"]) == told["tokens"]
    assert told["versions"] == sorted(told["versions"])
    assert set(told["versions"]) == {3, 4}
    assert max(found["in flight errors"]) <= 1e-4  # of the tokens after it: the prefix was read again


def test_no_prefix_outlives_its_weights(found: dict[str, Any]) -> None:
    assert max(found["stale prefix"]) <= 1e-4


def test_what_does_not_fit_is_refused(found: dict[str, Any]) -> None:
    shape, names, temperature = found["refused"]
    assert "model.norm.weight has shape [3], the model's has [576]" in shape
    assert "weights of another model: unknown ['x']" in names
    assert "at temperature 0 or from 0.01 upwards" in temperature


def test_the_processor_of_the_second_runner(found: dict[str, Any]) -> None:
    told = found["second runner"]
    assert told["is one"]
    assert told["seen"] == [True, True, False]
    assert told["allowed"] == [7, 600]
    assert told["others untouched"]
    assert told["entropy error"] <= 1e-5
    assert told["constrained"] == 2
    assert told["failure"] == ""
