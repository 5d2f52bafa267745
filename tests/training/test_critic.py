"""The critic: its loss and gradient, what it is made of, and that it comes back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.levers import tiny_model
from support.updates import MOMENT, learner, played, update
from torch import Tensor, nn

from palaestra.config import LearnerConfig, OptimiserConfig
from palaestra.errors import CheckpointError, TrainingError
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from palaestra.training.critic import Critic, CriticPlan, Trunk, value_loss
from palaestra.training.forward import PolicyModel
from palaestra.training.gae import Decisions, GaeAdvantage, Unit
from palaestra.training.learner import Learner
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

TRUNKS = pytest.mark.parametrize("trunk", ["own", "frozen", "policy"])
UNITS = pytest.mark.parametrize("unit", ["turn", "token"])


def critic(unit: Unit = "turn", trunk: Trunk = "own", *, budget: int = 10**6, lr: float = 1e-2) -> Critic:
    optimiser = OptimiserConfig(lr=lr, grad_clip=0)
    plan = CriticPlan(GaeAdvantage(unit), optimiser, trunk)
    return plan(PolicyModel(tiny_model()), LearnerConfig(micro_batch_tokens=budget))


def moved(subject: Critic, seed: int = 0) -> Critic:
    """The critic with a head that says something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        subject.head.weight.copy_(0.2 * torch.randn(subject.head.weight.shape, generator=g))
        subject.head.bias.fill_(0.3)
    return subject


def gradients(subject: Critic, batch: Batch) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    step = subject.optimiser.step

    def keep(lr: float) -> float:
        found.update({name: p.grad.clone() for name, p in subject.weights.named_parameters()})  # type: ignore[union-attr]
        return step(lr)

    subject.optimiser.step = keep  # type: ignore[method-assign]
    subject.learn(batch, batch.rows, MOMENT)
    return found


@UNITS
def test_it_begins_at_zero_and_leaves_the_policy_alone(unit: Unit) -> None:
    subject = critic(unit)
    batch = subject.evaluate(played())
    assert batch.value is not None
    assert not batch.value.any()
    policy = tiny_model()
    assert all(
        torch.equal(value, dict(policy.base_model.named_parameters())[name])
        for name, value in subject.trunk.named_parameters()
    )
    assert batch.notes["explained_variance"] == pytest.approx(0.0)


@UNITS
def test_values_are_those_of_the_state_before(unit: Unit) -> None:
    """Against whole rows, one by one."""
    subject = moved(critic(unit, budget=30))
    batch = subject.evaluate(played())
    assert batch.value is not None
    decisions = Decisions.of(batch, unit)
    expected = torch.zeros(batch.shape)
    for row, column in zip(decisions.row.tolist(), decisions.column.tolist(), strict=True):
        state = subject.trunk(input_ids=batch.ids[row : row + 1, :column]).last_hidden_state[0, -1]
        expected[row, column] = subject.head(state)
    at = expected[decisions.row, decisions.column]
    torch.testing.assert_close(batch.value, decisions.on_tokens(at, batch), rtol=0, atol=1e-5)
    assert not batch.value[~batch.mask].any()


@settings(max_examples=60, deadline=None)
@given(
    value=st.floats(-3, 3),
    old=st.floats(-3, 3),
    target=st.floats(-3, 3),
    clip=st.sampled_from([0.0, 0.2, 1.0, math.inf]),
)
def test_the_loss_is_that_of_its_definition(value: float, old: float, target: float, clip: float) -> None:
    held = min(max(value, old - clip), old + clip)
    expected = max((value - target) ** 2, (held - target) ** 2)
    loss, clipped = value_loss(*(torch.tensor([x], dtype=torch.float64) for x in (value, old, target)), clip)
    assert float(loss) == pytest.approx(expected, abs=1e-12)
    assert bool(clipped) == ((held - target) ** 2 > (value - target) ** 2)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of the loss with respect to values, away from its kinks; where the clip decides it is 0."""
    g = torch.Generator().manual_seed(0)
    value, old, target = (torch.randn(400, generator=g, dtype=torch.float64) for _ in range(3))
    value.requires_grad_()
    loss, clipped = value_loss(value, old, target, 0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), value)
    h = 1e-6
    up, down = (value_loss(value.detach() + d, old, target, 0.2)[0] for d in (h, -h))
    held = torch.clamp(value, old - 0.2, old + 0.2).detach()
    close = ((held - target).square() - (value.detach() - target).square()).abs() < 1e-4
    smooth = ~close | ((value.detach() - old).abs() < 0.2 - 1e-4)
    torch.testing.assert_close(gradient[smooth], ((up - down) / (2 * h))[smooth], rtol=0, atol=1e-5)
    assert clipped.any()
    assert not gradient[clipped].any()


@UNITS
@TRUNKS
def test_the_weights_gradient_is_that_of_finite_differences(unit: Unit, trunk: Trunk) -> None:
    subject = moved(critic(unit, trunk))
    for module in (subject.weights, subject.trunk):
        module.double()
    batch = subject.evaluate(played())
    batch = batch.with_(returns=torch.where(batch.mask, torch.rand(batch.shape), 0.0))
    points = Decisions.of(batch, unit).points(batch)

    def loss() -> float:
        again = subject.evaluate(batch)
        assert again.value is not None
        assert batch.returns is not None
        return 0.5 * float((again.value - batch.returns)[points].double().square().mean())

    bias = subject.head.bias
    with torch.no_grad():
        bias += 1e-2
        up = loss()
        bias -= 2e-2
        down = loss()
        bias += 1e-2
    found = gradients(subject, batch)
    assert float(found["head.bias"]) == pytest.approx((up - down) / 2e-2, rel=1e-3)
    assert ("trunk.embed_tokens.weight" in found) == (trunk == "own")


@UNITS
@TRUNKS
def test_micro_batches_change_nothing(unit: Unit, trunk: Trunk) -> None:
    results = []
    for budget in (10**6, 40, 12):
        subject = moved(critic(unit, trunk, budget=budget))
        batch = subject.evaluate(played())
        results.append((batch.value, gradients(subject, batch)))
    for value, found in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=0, atol=1e-5)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-4, atol=1e-6)


@TRUNKS
def test_it_learns_what_it_is_told(trunk: Trunk) -> None:
    """Steps on one batch with fixed targets: its error falls to a fraction."""
    subject = critic("turn", trunk, lr=0.02)
    batch = subject.evaluate(played())
    first = subject.learn(batch, batch.rows, MOMENT)["value_loss"]
    for _ in range(60):
        last = subject.learn(batch, batch.rows, MOMENT)["value_loss"]
    assert last < (0.1 if trunk == "own" else 0.6) * first


def test_explained_variance() -> None:
    subject = learner("algorithm.name=ppo", "algorithm.settings.ppo={lam: 1, gamma: 1, lr_ratio: 30, clip_value: .inf}")
    found = [subject.update(played(), Moment(i, 60)).metrics for i in range(40)]
    assert found[0]["explained_variance"] == pytest.approx(0.0)
    assert found[-1]["explained_variance"] > 0.8  # type: ignore[operator]
    assert found[-1]["return_mean"] == pytest.approx(found[0]["return_mean"])
    flat = learner("algorithm.name=ppo").update(played().with_(reward=torch.zeros(12).double(), turns=None), MOMENT)
    assert flat.metrics["explained_variance"] is None
    assert {name for name in found[0] if name.startswith("value")} <= flat.metrics.keys()


@TRUNKS
def test_a_checkpoint_has_all_of_it(tmp_path: Path, trunk: Trunk) -> None:
    overrides = ["algorithm.name=ppo", f"algorithm.settings.ppo.trunk={trunk}"]
    first = learner(*overrides)
    first.update(played(), MOMENT)
    saved = Checkpoint(
        1, dict(first.policy.model.named_parameters()), first.optimiser.state_tensors(), {}, first.more_tensors()
    )
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved))
    second = learner(*overrides)
    second.load_more_tensors(loaded.more)
    ours, theirs = first.more_tensors()["critic"], second.more_tensors()["critic"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any("trunk" in name for name in ours) == (trunk == "own")
    assert any(name.endswith("exp_avg") for name in ours)
    (tmp_path / "000001" / "critic.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"critic.safetensors is not what was written"):
        load_checkpoint(tmp_path / "000001")


def test_a_checkpoint_of_another_critic_is_refused() -> None:
    own, head = learner("algorithm.name=ppo"), learner("algorithm.name=ppo", "algorithm.settings.ppo.trunk=policy")
    with pytest.raises(CheckpointError, match="the checkpoint's critic is of another model"):
        own.load_more_tensors(head.more_tensors())
    with pytest.raises(CheckpointError, match="has no critic; begin anew"):
        own.load_more_tensors({})


def test_values_that_are_no_numbers_take_no_step() -> None:
    subject = learner("algorithm.name=ppo")
    assert isinstance(subject.critic, Critic)
    before = {name: p.clone() for name, p in subject.policy.model.named_parameters()}
    with torch.no_grad():
        subject.critic.head.bias.fill_(math.inf)
    with pytest.raises(TrainingError, match="iteration 1: the critic's"):
        subject.update(played(), MOMENT)
    assert all(torch.equal(p, before[name]) for name, p in subject.policy.model.named_parameters())


def test_the_critic_s_step_is_its_own() -> None:
    """The policy's gradient does not see the critic's loss, nor the other way round."""
    few, many = (
        learner("algorithm.name=ppo", f"algorithm.settings.ppo.value_coeff={coefficient}") for coefficient in (0.5, 50)
    )
    ours, theirs = update(few, played())[1], update(many, played())[1]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    shared = learner("algorithm.name=ppo", "algorithm.settings.ppo.trunk=policy")
    assert all(torch.equal(ours[name], gradient) for name, gradient in update(shared, played())[1].items())


def test_a_shared_token_s_target_is_the_mean_over_the_branches_through_it() -> None:
    """Two episodes that part after their first turn: returns 1 and 4."""
    first = [Node(ids=[1]), Node(ids=[2, 3], sampled=True, logprobs=[-1.0] * 2, entropies=[1.0] * 2), Node(ids=[1])]
    played_ = []
    for name, token, reward, branch_of in (("a", 4, 1.0, None), ("b", 5, 4.0, ("a", 1))):
        nodes = [*first, Node(ids=[token], sampled=True, logprobs=[-1.0], entropies=[1.0])]
        steps = [StepRecord(observation=str(n), action="", reward=0.0, completion=n) for n in (1, 3)]
        steps[1].reward = reward
        more = {"nodes": nodes, "steps": steps, "total_reward": reward, "branch_of": branch_of}
        played_.append(Trajectory(id=name, env="", task="", group="g", **more))  # type: ignore[arg-type]
    batch = build_rows(played_).batch
    assert batch.mask.sum() == 4
    plan = CriticPlan(GaeAdvantage("turn", gamma=1.0, lam=1.0), OptimiserConfig())
    subject = moved(plan(PolicyModel(tiny_model()), LearnerConfig()))
    found = subject.evaluate(batch)
    assert found.returns is not None
    torch.testing.assert_close(found.returns[batch.mask], torch.tensor([2.5, 2.5, 1.0, 4.0]))


def parameters(subject: Learner) -> int:
    assert isinstance(subject.critic, Critic)
    modules: set[nn.Module] = {subject.critic.trunk, subject.critic.head} - {subject.policy.trunk}
    return sum(p.numel() for module in modules for p in module.parameters())


def test_a_head_on_the_policy_s_trunk_costs_no_memory() -> None:
    sizes = {
        trunk: parameters(learner("algorithm.name=ppo", f"algorithm.settings.ppo.trunk={trunk}"))
        for trunk in ("own", "frozen", "policy")
    }
    assert sizes["policy"] == 17
    assert sizes["own"] == sizes["frozen"] == 17 + sum(p.numel() for p in tiny_model().base_model.parameters())
