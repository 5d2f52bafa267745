"""What holds for EMPG whatever the numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shaping import by_turn, padded, permuted, random_batch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.modulation import Modulation, modulate
from palaestra.training.plugins.empg import EntropyModulation, Settings
from palaestra.training.seams import Moment

CHECK = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10**6)
KS = st.sampled_from([0.0, 0.5, 1.0, 3.0])
ZETAS = st.sampled_from([0.0, 0.05, 0.3])
KEEP = {"uniform_groups": "keep"}


def of(batch: Batch, **options: Any) -> Modulation:
    assert batch.advantage is not None
    assert batch.old_entropy is not None
    columns = batch.advantage, batch.old_entropy, batch.mask, batch.step_id, batch.traj
    return modulate(*columns, Settings(**options))


def shaped(batch: Batch, **options: Any) -> Tensor:
    return EntropyModulation(Settings(**options))(batch, Moment(0, 1)).advantage


def base(batch: Batch) -> Tensor:
    assert batch.advantage is not None
    return batch.advantage


def close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@CHECK
@given(seed=SEEDS)
def test_without_scaling_bonus_and_centring_it_is_the_base(seed: int) -> None:
    batch = random_batch(seed)
    neutral = {"k": 0.0, "zeta": 0.0, "center": "none"}
    assert torch.equal(shaped(batch, **neutral, eps_g=0.0), base(batch))
    close(shaped(batch, **neutral), base(batch), 2e-7)


@CHECK
@given(seed=SEEDS)
def test_centring_subtracts_the_step_weighted_mean(seed: int) -> None:
    batch = random_batch(seed)
    result = of(batch, k=0.0, zeta=0.0, eps_g=0.0)
    turns = batch.advantage[batch.mask].double()  # type: ignore[index]
    mean = float(result.turns.mean(turns).mean())
    assert result.shift == pytest.approx(mean, abs=1e-12)
    close(result.tokens, turns - mean)
    by_token = of(batch, k=0.0, zeta=0.0, eps_g=0.0, center="token")
    assert float(by_token.tokens.mean()) == pytest.approx(0, abs=1e-12)
    assert by_token.shift == pytest.approx(float(turns.mean()), abs=1e-12)


@CHECK
@given(seed=SEEDS, k=KS)
def test_scale_has_mean_one_and_falls_with_entropy(seed: int, k: float) -> None:
    result = of(random_batch(seed), k=k)
    assert float(result.scale.mean()) == pytest.approx(1, abs=1e-7)
    order = result.entropy.argsort()
    assert result.scale[order].diff().le(1e-15).all()
    ratio = result.scale[:, None] / result.scale[None]
    close(ratio, (-k * (result.normalised[:, None] - result.normalised[None])).exp())
    assert result.scale.ge(math.exp(-k) - 1e-6).all()
    assert result.scale.le(math.exp(k) + 1e-6).all()
    assert result.clarity.gt(0).all()
    assert result.clarity.le(1).all()
    assert result.normalised.ge(0).all()
    assert result.normalised.le(1).all()


@CHECK
@given(seed=SEEDS, k=KS, zeta=ZETAS)
def test_final_advantages_sum_to_zero_over_steps(seed: int, k: float, zeta: float) -> None:
    result = of(random_batch(seed), k=k, zeta=zeta)
    assert float((result.modulated - result.shift).sum()) == pytest.approx(0, abs=1e-9)


@CHECK
@given(seed=SEEDS, scale=st.floats(0.1, 50), shift=st.floats(-3, 3))
def test_affine_changes_of_entropy_change_nothing(seed: int, scale: float, shift: float) -> None:
    batch = random_batch(seed)
    assert batch.old_entropy is not None
    batch = batch.with_(old_entropy=batch.old_entropy.double())
    other = batch.with_(old_entropy=scale * batch.old_entropy + shift)  # type: ignore[operator]
    close(of(other).tokens, of(batch).tokens, 1e-6)


@CHECK
@given(seed=SEEDS, which=st.integers(0, 100))
def test_tokens_with_a_turn_s_mean_entropy_change_nothing_before_the_broadcast(seed: int, which: int) -> None:
    batch = random_batch(seed)
    assert batch.old_entropy is not None
    batch = batch.with_(old_entropy=batch.old_entropy.double())
    result = of(batch)
    turn = which % len(result.turns.size)
    traj, step = result.turns.key[turn].tolist()
    more = padded(batch, 2, 0.0)
    mask, step_id = more.mask.clone(), more.step_id.clone()
    entropy, advantage = more.old_entropy.clone(), more.advantage.clone()  # type: ignore[union-attr]
    mask[traj, -2:], step_id[traj, -2:], entropy[traj, -2:] = True, step, result.entropy[turn]
    advantage[traj, -2:] = advantage[traj][batch.mask[traj].nonzero()[0, 0]]
    other = of(more.with_(mask=mask, step_id=step_id, old_entropy=entropy, advantage=advantage))
    for name in ("entropy", "normalised", "scale", "clarity", "bonus", "modulated"):
        close(getattr(other, name), getattr(result, name))
    assert other.shift == pytest.approx(result.shift, abs=1e-9)


@CHECK
@given(seed=SEEDS, columns=st.integers(0, 4), fill=st.sampled_from([0.0, 1e12, math.inf, math.nan]))
def test_masked_entropies_and_padding_change_nothing(seed: int, columns: int, fill: float) -> None:
    batch = random_batch(seed)
    expected, found = shaped(batch), shaped(padded(batch, columns, fill))
    assert torch.equal(found[:, : batch.shape[1]], expected)
    assert not expected[~batch.mask].any()
    assert not found[:, batch.shape[1] :].any()


@CHECK
@given(seed=SEEDS, order=st.permutations(range(9)))
def test_permuting_trajectories_permutes_and_labels_do_not_matter(seed: int, order: list[int]) -> None:
    batch, index = random_batch(seed), torch.tensor(order)
    close(shaped(permuted(batch, index)), shaped(batch)[index], 1e-6)
    relabelled = batch.with_(traj=50 - 2 * batch.traj, group=9 - batch.group)
    close(shaped(relabelled), shaped(batch), 1e-6)


@CHECK
@given(seed=SEEDS)
def test_rows_of_turns_and_rows_of_trajectories_agree(seed: int) -> None:
    batch = random_batch(seed)
    whole, turns = of(batch), of(by_turn(batch))
    assert torch.equal(whole.turns.key, turns.turns.key)
    for name in ("scale", "bonus", "modulated"):
        close(getattr(turns, name), getattr(whole, name))


@CHECK
@given(seed=SEEDS)
def test_reordering_the_steps_of_a_trajectory_changes_the_bonus_alone(seed: int) -> None:
    batch = random_batch(seed)
    top = int(batch.step_id.max())
    other = batch.with_(step_id=torch.where(batch.mask, top - batch.step_id, -1))
    one, two = of(batch), of(other)
    back = two.turns.key.clone()
    back[:, 1] = top - back[:, 1]
    match = [back.tolist().index(pair) for pair in one.turns.key.tolist()]
    for name in ("entropy", "normalised", "scale", "clarity"):
        close(getattr(two, name)[match], getattr(one, name))
    close((two.modulated - two.bonus)[match], one.modulated - one.bonus)


@CHECK
@given(seed=SEEDS, zeta=st.floats(0.01, 1))
def test_last_steps_get_no_bonus_and_without_advantage_the_bonus_is_what_remains(seed: int, zeta: float) -> None:
    batch = random_batch(seed)
    result = of(batch.with_(advantage=torch.zeros(batch.shape)), zeta=zeta)
    following = result.turns.following
    assert not result.bonus[following < 0].any()
    close(result.bonus[following >= 0], zeta * result.clarity[following[following >= 0]])
    close(result.tokens, (result.bonus - result.bonus.mean())[result.turns.owner])
    for position, (traj, step) in enumerate(result.turns.key.tolist()):
        later = [s for t, s in result.turns.key.tolist() if t == traj and s > step]
        expected = result.turns.key.tolist().index([traj, min(later)]) if later else -1
        assert int(following[position]) == expected


@CHECK
@given(seed=SEEDS)
def test_groups_without_signal_are_zero_or_as_the_formula_has_it(seed: int) -> None:
    batch = random_batch(seed)
    advantage = torch.where((batch.group == 1)[:, None], 0.0, base(batch))
    batch = batch.with_(advantage=advantage)
    zero, keep = shaped(batch), shaped(batch, **KEEP)
    inside = batch.mask & (batch.group == 1)[:, None]
    others = batch.mask & (batch.group != 1)[:, None]
    assert not zero[inside].any()
    assert keep[inside].any() or not inside.any()
    assert torch.equal(zero[others], keep[others])


@CHECK
@given(seed=SEEDS)
def test_rows_that_were_filtered_out_have_no_part(seed: int) -> None:
    batch = random_batch(seed)
    kept = batch.group != 1
    rows = kept.nonzero()[:, 0]
    close(shaped(batch.with_(kept=kept))[rows], shaped(permuted(batch, rows)), 1e-6)
    assert not shaped(batch.with_(kept=kept))[~kept].any()


def test_statistics_are_those_of_the_whole_batch() -> None:
    one, two = random_batch(1), random_batch(2)
    two = two.with_(traj=two.traj + 9, group=two.group + 3)
    names = ("mask", "step_id", "traj", "group", "old_entropy", "advantage", "ids")
    both = one.with_(**{name: torch.cat((getattr(one, name), getattr(two, name))) for name in names})
    apart = torch.cat((shaped(one), shaped(two)))
    assert not torch.allclose(shaped(both), apart, atol=1e-3)


def test_nothing_carries_gradient() -> None:
    batch = random_batch(0)
    entropy = batch.old_entropy.clone().requires_grad_()  # type: ignore[union-attr]
    advantage = base(batch).clone().requires_grad_()
    assert not shaped(batch.with_(old_entropy=entropy, advantage=advantage)).requires_grad


@CHECK
@given(seed=SEEDS)
def test_percentiles_keep_one_odd_turn_from_deciding_the_scale(seed: int) -> None:
    batch = random_batch(seed, size=6)
    assert batch.old_entropy is not None
    odd = batch.old_entropy.clone()
    odd[0] = torch.where(batch.mask[0] & (batch.step_id[0] == batch.step_id[0].max()), 1e4, odd[0])
    batch = batch.with_(old_entropy=odd)
    plain, robust = of(batch), of(batch, percentile=0.05)
    assert robust.normalised.ge(0).all()
    assert robust.normalised.le(1).all()
    assert float(robust.normalised.std()) > float(plain.normalised.std())


@pytest.mark.parametrize("rows", [0, 4])
def test_batches_without_policy_tokens_stay_empty(rows: int) -> None:
    batch = random_batch(0, groups=1, size=4)
    batch = permuted(batch, torch.arange(rows)).with_(
        mask=torch.zeros(rows, 12, dtype=torch.bool), step_id=torch.full((rows, 12), -1)
    )
    assert not shaped(batch).any()


def test_one_turn_and_equal_entropies_are_the_base() -> None:
    batch = random_batch(4)
    assert batch.old_entropy is not None
    flat = batch.with_(old_entropy=torch.full(batch.shape, 0.7))
    result = of(flat, zeta=0.05)
    close(result.scale, torch.ones_like(result.scale), 1e-7)
    assert not result.normalised.gt(1e-7).any()


def test_what_is_logged() -> None:
    log = EntropyModulation(Settings())(random_batch(5), Moment(0, 1)).log
    assert set(log) == {"empg_shift", "empg_flipped", "empg_last_turns"}
    assert 0 <= (log["empg_flipped"] or 0) <= 1
