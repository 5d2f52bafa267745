"""Where tensors wait, and whether layers are compiled, changes nothing of what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.updates import assert_same, learner, played, update

from palaestra.training.learner import Learner
from palaestra.training.seams import Moment

BASE = ["algorithm.name=epo", "optimiser.lr=3e-3"]


def weights(*overrides: str) -> Learner:
    subject = learner(*BASE, *overrides)
    for number in range(2):
        subject.update(played(number), Moment(number, 10))
    return subject


@pytest.mark.parametrize("offload", ["optimiser", "activations", "both"])
def test_offloading(offload: str) -> None:
    plain, moved = weights(), weights(f"learner.offload={offload}")
    assert_same(moved.optimiser.state_tensors(), plain.optimiser.state_tensors(), atol=0)
    assert_same(dict(moved.policy.model.named_parameters()), dict(plain.policy.model.named_parameters()), atol=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # a kill while it compiles leaves half a library there
    expected = update(learner(*BASE), played())
    found = update(learner(*BASE, "learner.compile=true"), played())
    assert_same(found[1], expected[1], atol=1e-5)
