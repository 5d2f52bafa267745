"""Weights that are spread over ranks learn what whole ones learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import in_ranks
from support.updates import assert_same, learner, played

from palaestra.errors import CheckpointError
from palaestra.training.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from palaestra.training.learner import Learner
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


@pytest.mark.parametrize(("world", "cases"), [(2, CASES[:2]), (3, CASES[2:])])
def test_ranks_with_a_part_each_are_one_process(world: int, cases: list[list[str]], tmp_path: Path) -> None:
    found = in_ranks(everything, [cases], tmp_path, world)
    for number, case in enumerate(cases):
        alone = trained(case)
        for one in (each[number] for each in found):
            assert one["sharded"]
            assert not alone["sharded"]
            assert len(one["gradients"]) == len(alone["gradients"])
            assert_same(one["gradients"][0], alone["gradients"][0])
            assert one["loss"] == pytest.approx(alone["loss"], abs=1e-4)
            assert_same(one["weights"], found[0][number]["weights"], atol=0)
            for name, value in one["weights"].items():
                # AdamW divides by a gradient's size, so that where one is rounding its step is anything up to lr.
                torch.testing.assert_close(value, alone["weights"][name], atol=2 * 3e-3 * len(one["gradients"]), rtol=0)


SAVED = ["algorithm.name=epo", "optimiser.lr=3e-3", "learner.shard=true"]


def state(subject: Learner) -> dict[str, torch.Tensor]:
    """Weights and moments, whole."""
    weights = {name: p.detach() for name, p in subject.policy.model.named_parameters()}
    return whole_tensors({**weights, **subject.optimiser.state_tensors()})


def saves(folder: str) -> dict[str, torch.Tensor]:
    subject = learner(*SAVED)
    subject.update(played(0), Moment(0, 10))
    weights, moments = dict(subject.policy.model.named_parameters()), subject.optimiser.state_tensors()
    save_checkpoint(Path(folder), Checkpoint(1, weights, moments, {"algorithm": {}}))
    return state(subject)


def restores(folder: str) -> dict[str, torch.Tensor]:
    subject = learner(*SAVED)
    checkpoint = load_checkpoint(Path(folder) / "000001")
    load_weights(subject.policy.model, checkpoint.model)
    subject.optimiser.load_state_tensors(checkpoint.optimiser)
    return state(subject)


def test_checkpoints_are_read_by_another_number_of_ranks(tmp_path: Path) -> None:
    for name in ("save", "load", "alone"):
        (tmp_path / name).mkdir()
    folder = str(tmp_path / "checkpoints")
    saved = in_ranks(saves, [folder], tmp_path / "save", 2)[0]
    found = [*in_ranks(restores, [folder], tmp_path / "load", 3), restores(folder)]
    for each in found:
        assert_same(each, saved, atol=0)
    shards = sorted((tmp_path / "checkpoints" / "000001" / "shards").iterdir())
    assert len(shards) == 2, "a file of each rank"
    alone = learner(*SAVED)
    alone.update(played(0), Moment(0, 10))
    weights, moments = dict(alone.policy.model.named_parameters()), alone.optimiser.state_tensors()
    save_checkpoint(tmp_path / "whole", Checkpoint(1, weights, moments, {"algorithm": {}}))
    spread = in_ranks(restores, [str(tmp_path / "whole")], tmp_path / "alone", 2)[0]
    assert_same(spread, state(alone), atol=0)
    shards[0].write_bytes(shards[0].read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoints" / "000001")
