"""What holds for AEPO's entropy-aware advantage whatever the numbers; its clip is in `test_policy_loss.py`."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.levers import tiny_model
from support.shaping import by_turn, padded, permuted, random_batch
from torch import Tensor

from palaestra.config import LearnerConfig, parse_recipe
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.plugins.aepo import CodeAdvantage, EntropyAwareAdvantage, entropy_factor, standardise
from palaestra.training.seams import Moment, Tokens

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)


def entropy_of(batch: Batch) -> Tensor:
    assert batch.old_entropy is not None
    return batch.old_entropy


def shaped(batch: Batch, weight: float = 0.2, **options: Any) -> Tensor:
    return EntropyAwareAdvantage(weight, **options)(batch, Moment(0, 1)).advantage


def base(batch: Batch) -> Tensor:
    assert batch.advantage is not None
    return batch.advantage


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, check_dtype=False)


@CHECK
@given(seed=SEEDS)
def test_weight_zero_is_the_base(seed: int) -> None:
    batch = random_batch(seed)
    assert torch.equal(shaped(batch, 0.0).float(), base(batch))


@CHECK
@given(seed=SEEDS)
def test_standardised_entropies_have_mean_zero_and_unbiased_std_one(seed: int) -> None:
    batch = random_batch(seed)
    values = standardise(entropy_of(batch), batch.mask).value[batch.mask]
    assert float(values.mean()) == pytest.approx(0, abs=1e-9)
    assert float(values.std()) == pytest.approx(1, abs=1e-9)


@CHECK
@given(seed=SEEDS, scale=st.floats(0.1, 50), shift=st.floats(-3, 3))
def test_affine_changes_of_entropy_change_nothing(seed: int, scale: float, shift: float) -> None:
    batch = random_batch(seed)
    entropy = entropy_of(batch).double()
    close(shaped(batch.with_(old_entropy=scale * entropy + shift)), shaped(batch.with_(old_entropy=entropy)), 1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 3.3])
def test_constant_entropy_is_the_base(dtype: torch.dtype, value: float) -> None:
    batch = random_batch(1)
    flat = batch.with_(old_entropy=torch.full(batch.shape, value, dtype=dtype))
    assert torch.equal(shaped(flat).float(), base(batch))


@CHECK
@given(seed=SEEDS, weight=st.floats(0.05, 2))
def test_signs_agree_above_the_flip_and_the_clamp_removes_it(seed: int, weight: float) -> None:
    batch = random_batch(seed)
    normed = standardise(entropy_of(batch), batch.mask).value
    above = batch.mask & (normed > -1 / weight + 1e-9)
    assert torch.equal(shaped(batch, weight).sign()[above], base(batch).sign().double()[above])
    clamped = shaped(batch, weight, clamp=True)
    assert (clamped * base(batch)).ge(0).all()
    assert torch.equal(clamped[above], shaped(batch, weight)[above])


@CHECK
@given(seed=SEEDS)
def test_groups_without_signal_stay_zero(seed: int) -> None:
    batch = random_batch(seed)
    batch = batch.with_(advantage=torch.where((batch.group == 1)[:, None], 0.0, base(batch)))
    assert not shaped(batch)[batch.group == 1].any()


@CHECK
@given(seed=SEEDS, columns=st.integers(0, 4), fill=st.sampled_from([0.0, 1e12, math.inf, math.nan]))
def test_masked_entropies_and_padding_change_nothing(seed: int, columns: int, fill: float) -> None:
    batch = random_batch(seed)
    found = shaped(padded(batch, columns, fill))
    assert torch.equal(found[:, : batch.shape[1]], shaped(batch))
    assert not found[:, batch.shape[1] :].any()


@CHECK
@given(seed=SEEDS, order=st.permutations(range(9)))
def test_rows_permute_and_layouts_agree(seed: int, order: list[int]) -> None:
    batch, index = random_batch(seed), torch.tensor(order)
    close(shaped(permuted(batch, index)), shaped(batch)[index])
    turns = by_turn(batch)
    close(shaped(turns)[turns.mask], shaped(batch)[batch.mask])


@CHECK
@given(seed=SEEDS)
def test_rows_that_were_filtered_out_have_no_part(seed: int) -> None:
    batch = random_batch(seed)
    kept = batch.group != 1
    rows = kept.nonzero()[:, 0]
    close(shaped(batch.with_(kept=kept))[rows], shaped(permuted(batch, rows)))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_tokens_have_no_spread(count: int) -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[0, :count] = True
    assert torch.equal(entropy_factor(torch.rand(2, 3), mask, 0.2), torch.ones(2, 3, dtype=torch.float64))


def learner(*overrides: str, **config: Any) -> Learner:
    recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', ["algorithm.name=aepo", *overrides])
    return Learner(tiny_model(), build_algorithm(recipe), config=LearnerConfig(**config))


def trained(subject: Learner) -> Tensor:
    """All weights after one update."""
    batch = random_batch(5, groups=2)
    subject.update(batch.with_(ids=batch.ids, old_logprob=None, old_entropy=None, advantage=None), Moment(0, 10))
    return torch.cat([p.detach().flatten() for p in subject.policy.model.parameters()])


def test_the_released_code_s_statistics_are_those_of_a_micro_batch() -> None:
    code = "algorithm.settings.aepo.statistics=code"
    whole, ours = trained(learner(code)), trained(learner())
    close(whole, ours, 1e-5)
    assert not torch.equal(ours, trained(learner("algorithm.settings.aepo.advantage_weight=0")))
    close(trained(learner(micro_batch_tokens=12)), ours, 1e-5)
    assert float((trained(learner(code, micro_batch_tokens=12)) - whole).abs().max()) > 1e-5
    assert "scored" not in learner(code).algorithm.requires
    recipe = parse_recipe(
        'name: x\ntasks: {train: "a:train"}\n', ["algorithm.name=epo", "algorithm.plugins=[epo, aepo]", code]
    )
    assert build_algorithm(recipe).parts.token_shapers


def test_nothing_carries_gradient() -> None:
    batch = random_batch(0)
    tokens = Tokens(*[torch.rand(5, requires_grad=True) for _ in range(5)], step_id=torch.zeros(5).long())
    assert not CodeAdvantage().on_tokens(replace(tokens, advantage=torch.rand(5))).advantage.requires_grad
    assert not entropy_factor(entropy_of(batch).requires_grad_(), batch.mask, 0.2).requires_grad


def test_on_policy_the_clip_alone_is_grpo() -> None:
    """Where every ratio is 1, in the first step: no weight of entropy, the bounded gradient, and GRPO's update."""
    same = ["algorithm.settings.aepo.advantage_weight=0", "algorithm.aggregation=seq-mean-token-mean"]
    ours, plain = trained(learner(*same)), trained(learner(*same, "algorithm.policy_loss=clip"))
    close(ours, plain, 1e-7)
    later = [*same, "optimiser.lr=0.03", "algorithm.clip_high=0.01"]
    passes = [
        trained(learner(*later, f"algorithm.policy_loss={loss}", mini_batches=1, epochs=3))
        for loss in ("entropy_balanced", "clip")
    ]
    assert float((passes[0] - passes[1]).abs().max()) > 1e-4
