"""Two processes that share an update make the one that a single process makes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import in_ranks
from support.updates import MIXES, assert_same, learner, played

from palaestra.training import ranks as module
from palaestra.training.learner import Learner
from palaestra.training.ranks import add_up, added_up, ranks, share
from palaestra.training.seams import Moment

pytestmark = pytest.mark.timeout(600)
TWO = "learner.mini_batches=2"
CASES: list[list[str]] = [
    *([*mix, TWO] for mix in MIXES),
    *([f"algorithm.name={name}"] for name in ("grpo", "epo", "empg", "aepo", "ppo")),
    ["algorithm.name=dapo", "algorithm.plugins=[uniform_groups, overlong, mismatch]", TWO],
    ["algorithm.name=epo", "algorithm.plugins=[epo, empg, aepo, mismatch]", TWO],
    ["algorithm.name=epo", TWO, "learner.epochs=2", "algorithm.settings.epo.include_current=true"],
    ["algorithm.name=ppo", "algorithm.settings.ppo.unit=token", TWO],
    ["algorithm.name=aepo", "learner.mini_batches=5", "learner.micro_batch_tokens=30"],
    ["algorithm.name=spear", TWO, *(f"algorithm.settings.self_imitation.{each}" for each in ("warmup=0", "low=0"))],
]
"""Every algorithm, every plug-in, some together, and steps with fewer rows than ranks."""
STANDING = "optimiser.lr=1e-12"
"""AdamW divides by the size of a gradient, so that where one is rounding the step is."""
MOVING = [[f"algorithm.name={name}", TWO] for name in ("grpo", "dapo", "epo", "empg", "aepo", "ppo")]
MOVING += [["algorithm.name=dapo", "algorithm.plugins=[uniform_groups, overlong, mismatch]", "learner.epochs=2"]]
"""Those whose weights are compared after real steps, in float64."""


def iterations(overrides: list[str]) -> dict[str, Any]:
    """Two iterations: the gradients of every optimiser step, the metrics, the trackers' state."""
    subject = learner(STANDING, *overrides)
    gradients = keep_gradients(subject)
    metrics = [dict(subject.update(played(number), Moment(number, 10)).metrics) for number in range(2)]
    return {"gradients": gradients, "metrics": metrics, "state": subject.algorithm.state_dict()}


def keep_gradients(subject: Learner) -> list[dict[str, torch.Tensor]]:
    found: list[dict[str, torch.Tensor]] = []
    for optimiser in filter(None, (subject.optimiser, getattr(subject.critic, "optimiser", None))):
        found_by, step = optimiser, optimiser.step

        def keep(lr: float, found_by: Any = found_by, step: Any = step) -> float:
            found.append({name: p.grad.clone() for name, p in found_by._parameters.items()})
            return float(step(lr))

        optimiser.step = keep  # type: ignore[method-assign]
    return found


def weights(overrides: list[str]) -> dict[str, torch.Tensor]:
    """After two iterations of real steps."""
    subject = learner("optimiser.lr=3e-3", *overrides)
    subject.policy.model.double()
    for number in range(2):
        subject.update(played(number), Moment(number, 10))
    return {name: p.detach() for name, p in subject.policy.model.named_parameters()}


def everything(still: list[list[str]], moving: list[list[str]]) -> dict[str, Any]:
    return {"still": [iterations(case) for case in still], "moving": [weights(case) for case in moving]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By rank, what came of each case."""
    return in_ranks(everything, [CASES, MOVING], tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("number", range(len(CASES)), ids=["+".join(case) for case in CASES])
def test_two_ranks_are_one_process(shared: list[dict[str, Any]], number: int) -> None:
    alone = iterations(CASES[number])
    for rank in shared:
        found = rank["still"][number]
        assert len(found["gradients"]) == len(alone["gradients"])
        for ours, theirs in zip(found["gradients"], alone["gradients"], strict=True):
            assert_same(ours, theirs)
        for ours, theirs in zip(found["metrics"], alone["metrics"], strict=True):
            assert_equal(ours, theirs)
    assert_equal(shared[0]["still"][number], shared[1]["still"][number])


@pytest.mark.parametrize("number", range(len(MOVING)), ids=["+".join(case) for case in MOVING])
def test_two_ranks_end_at_the_same_weights(shared: list[dict[str, Any]], number: int) -> None:
    alone = weights(MOVING[number])
    for rank in shared:
        for name, value in rank["moving"][number].items():
            torch.testing.assert_close(value, alone[name], atol=1e-6, rtol=0)
    assert all(torch.equal(shared[0]["moving"][number][name], shared[1]["moving"][number][name]) for name in alone)


def assert_equal(ours: Any, theirs: Any, where: str = "") -> None:
    """Numbers up to 1e-6, anything else exactly."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_equal(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}[{number}]")
    elif isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    elif isinstance(ours, float) and not math.isnan(ours):
        assert ours == pytest.approx(theirs, abs=1e-6, rel=1e-5), where
    else:
        assert ours is theirs or ours == theirs or (ours != ours and theirs != theirs), where


def test_alone_there_is_nothing_to_share() -> None:
    rows, tensor = torch.arange(5), torch.ones(2)
    assert ranks() == 1
    assert torch.equal(share(rows), rows)
    add_up([tensor])
    assert tensor.tolist() == [1, 1]
    assert added_up({"b": 1.0, "a": 2.0}) == {"b": 1.0, "a": 2.0}


def test_messages_keep_order_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE", 10)
    sizes = [3, 4, 5, 12, 1, 1]
    tensors = [torch.zeros(size, dtype=torch.float64 if size == 5 else torch.float32) for size in sizes]
    assert [[len(t) for t in message] for message in module._messages(tensors)] == [[3, 4], [5], [12], [1, 1]]
    assert not list(module._messages([]))


def small() -> dict[str, Any]:
    """What the functions say in a group."""
    rank = torch.distributed.get_rank()
    tensor = torch.tensor([float(rank), 1.0])
    add_up([tensor])
    names = added_up({"both": 1.0 + rank, f"only{rank}": 5.0})
    return {"ranks": ranks(), "share": share(torch.arange(5)).tolist(), "sum": tensor.tolist(), "names": names}


def test_shares_are_disjoint_and_numbers_add_up(tmp_path: Path) -> None:
    first, second = in_ranks(small, [], tmp_path)
    assert sorted(first["share"] + second["share"]) == [0, 1, 2, 3, 4]
    assert first["sum"] == second["sum"] == [1.0, 2.0]
    assert first["names"] == second["names"] == {"both": 3.0, "only0": 5.0, "only1": 5.0}
    assert first["ranks"] == 2
