"""Weights that are spread over ranks learn what whole ones learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import in_ranks
from support.updates import assert_same, learner, played

from palaestra.training.ranks import rank
from palaestra.training.seams import Moment
from palaestra.training.sharding import is_sharded, whole_tensors

pytestmark = pytest.mark.timeout(600)
CASES = [
    ["algorithm.name=epo", "learner.mini_batches=2"],
    ["algorithm.name=aepo", "learner.mini_batches=5", "learner.micro_batch_tokens=30"],
    ["algorithm.name=grpo", "algorithm.kl_coeff=0.1", "learner.merge_prefixes=always", "learner.packing=true"],
    ["algorithm.name=ppo", "learner.gradient_checkpointing=true"],
]
"""Steps with fewer rows than ranks, a reference, layouts, a critic and recomputed layers among them."""


def trained(overrides: list[str]) -> dict[str, Any]:
    """The gradients of two iterations' steps, and the weights after them."""
    subject = learner("optimiser.lr=3e-3", *overrides)
    gradients: list[dict[str, torch.Tensor]] = []
    step = subject.optimiser.step

    def keep(lr: float) -> float:
        found = {n: p.grad for n, p in subject.policy.model.named_parameters() if p.grad is not None}
        gradients.append({n: g.clone() for n, g in whole_tensors(found).items()})
        return step(lr)

    subject.optimiser.step = keep  # type: ignore[method-assign]
    metrics = [dict(subject.update(played(number), Moment(number, 10)).metrics) for number in range(2)]
    return {
        "gradients": gradients,
        "loss": [float(each["loss"] or 0) for each in metrics],
        "weights": {name: p.detach().clone() for name, p in subject.playing.named_parameters()},
        "sharded": any(is_sharded(p) for p in subject.policy.model.parameters()),
        "rank": rank(),
    }


def everything(cases: list[list[str]]) -> list[dict[str, Any]]:
    return [trained([*case, "learner.shard=true"]) for case in cases]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_with_a_part_each_are_one_process(world: int, tmp_path: Path) -> None:
    found = in_ranks(everything, [CASES], tmp_path, world)
    for number, case in enumerate(CASES):
        alone = trained(case)
        for one in (rank[number] for rank in found):
            assert one["sharded"]
            assert not alone["sharded"]
            assert len(one["gradients"]) == len(alone["gradients"])
            assert_same(one["gradients"][0], alone["gradients"][0])
            assert one["loss"] == pytest.approx(alone["loss"], abs=1e-4)
            assert_same(one["weights"], found[0][number]["weights"], atol=0)
            for name, value in one["weights"].items():
                # AdamW divides by a gradient's size, so that where one is rounding its step is anything up to lr.
                torch.testing.assert_close(value, alone["weights"][name], atol=2 * 3e-3 * len(one["gradients"]), rtol=0)
