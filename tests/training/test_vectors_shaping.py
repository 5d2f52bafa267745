"""Reference numbers of EMPG and of AEPO's update: every case and every key, values and gradients, in float64."""

from typing import Any

import pytest
import torch
from support.vectors import Case, Computation, check, f64, leaf, load, numbered
from torch import Tensor

from palaestra.training.advantage import group_advantage
from palaestra.training.aggregate import aggregate
from palaestra.training.modulation import Modulation, modulate
from palaestra.training.plugins.aepo import entropy_factor, standardise
from palaestra.training.plugins.empg import Settings
from palaestra.training.surrogate import balanced_surrogate, surrogate

FILES = {name: load(name) for name in ("empg", "aepo")}


def empg(params: Case, inputs: Case) -> tuple[Tensor, Modulation, Tensor]:
    """Group advantage, modulation, and the final advantage on tokens."""
    step_id = torch.tensor(inputs["step_id"])
    traj = torch.arange(len(step_id))
    advantage = group_advantage(f64(inputs["reward"]), numbered(inputs["group"]), traj, eps=params["grpo_eps"])
    options = Settings(
        k=params["k"],
        k_clarity=params["k_prime"],
        zeta=params["zeta"],
        eps=params["eps_norm"],
        eps_g=params["eps_g"],
        center="step" if params.get("center", True) else "none",
    )
    mask = step_id >= 0
    everywhere = advantage[:, None].expand(step_id.shape)
    result = modulate(everywhere, f64(inputs["entropy"]), mask, step_id, traj, options)
    return advantage, result, torch.zeros(step_id.shape, dtype=torch.float64).masked_scatter(mask, result.tokens)


def whole(params: Case, inputs: Case) -> Case:
    advantage, result, tokens = empg(params, inputs)
    following = result.turns.following
    final = result.modulated - result.shift
    return {
        "A_group": advantage,
        "steps": result.turns.key,
        "H_step": result.entropy,
        "H_norm": result.normalised,
        "g": result.scale,
        "f": result.clarity,
        "f_next": torch.where(following >= 0, result.clarity[following], 0),
        "A_mod": result.modulated,
        "A_final": final,
        "A_final_token": tokens,
        "mean_g": result.scale.mean(),
        "mean_A_final": final.mean(),
    }


def some(*keys: str) -> Computation:
    return lambda params, inputs: {key: whole(params, inputs)[key] for key in keys}


def reduction_to_grpo(params: Case, inputs: Case) -> Case:
    advantage, result, _ = empg({**params, "center": False}, inputs)
    centred = whole(params, inputs)["A_final"]
    return {
        "A_group": advantage,
        "A_mod": result.modulated,
        "A_final_centered": centred,
        "step_weighted_mean_advantage": result.modulated.mean(),
    }


def surrogate_on_main(params: Case, inputs: Case) -> Case:
    logprob, mask = leaf(inputs["logprob"]), f64(inputs["mask"])
    result = surrogate(logprob, f64(inputs["old_logprob"]), f64(inputs["advantage"]), mask, **bounds(params))
    mean = aggregate(result.loss, mask, "token-mean")
    (gradient,) = torch.autograd.grad(mean, logprob)
    clipped = aggregate(result.clipped.double(), mask, "token-mean")
    return {"loss_token_mean": mean, "clipfrac": clipped, "dloss_dlogprob": gradient}


def bounds(params: Case) -> dict[str, Any]:
    return {"clip_low": params["eps_low"], "clip_high": params["eps_high"], "dual_clip": params["dual_clip_c"]}


def entropy_aware_advantage(params: Case, inputs: Case) -> Case:
    entropy, mask = f64(inputs["entropy"]), f64(inputs["mask"]).bool()
    group, traj = numbered(inputs["group"]), torch.arange(len(mask))
    advantage = group_advantage(f64(inputs["reward"]), group, traj, eps=params["grpo_eps"])
    normed = standardise(entropy, mask)
    factor = entropy_factor(entropy, mask, params["a"])
    return {
        "A_group": advantage,
        "entropy_mean": normed.mean,
        "entropy_std": normed.std,
        "H_norm_masked": normed.value,
        "A_tilde": torch.where(mask, advantage[:, None] * factor, 0),
    }


def entropy_balanced_clipping(params: Case, inputs: Case) -> Case:
    logprob, old, mask = leaf(inputs["logprob"]), f64(inputs["old_logprob"]), f64(inputs["mask"])
    advantage = f64(inputs["advantage"])
    results, gradients = [], []
    for kind in (balanced_surrogate, surrogate):
        result = kind(logprob, old, advantage, mask, **bounds(params))
        results.append(result)
        gradients.append(torch.autograd.grad(aggregate(result.loss, mask, "token-mean"), logprob)[0])
    ours, plain = results
    assert torch.equal(ours.loss.detach(), plain.loss.detach())
    inside = mask.bool() & (advantage != 0)
    factor = torch.where(inside, -gradients[0] * mask.sum() / advantage, 0)
    return {
        "ratio_masked": ours.ratio,
        "loss_token_masked": ours.loss,
        "loss_token_mean": aggregate(ours.loss, mask, "token-mean"),
        "F_coefficient_masked": factor,
        "preserved_tokens": ours.preserved,
        "dual_clipped": ours.dual_clipped,
        "dtokenmean_dlogprob_aepo": gradients[0],
        "dtokenmean_dlogprob_standard": gradients[1],
    }


CASES: dict[str, dict[str, Computation]] = {
    "empg": {
        "main_k1_zeta0.05": whole,
        "listing_defaults_k1_zeta0.1": whole,
        "strong_k2_kp0.5_zeta0.3": whole,
        "no_centering": some("A_mod", "A_final"),
        "reduction_to_grpo": reduction_to_grpo,
        "all_entropies_equal": some("H_norm", "g", "f", "A_mod", "A_final"),
        "surrogate_on_main": surrogate_on_main,
    },
    "aepo": {
        "entropy_aware_advantage": entropy_aware_advantage,
        "entropy_balanced_clipping": entropy_balanced_clipping,
    },
}


@pytest.mark.parametrize(("file", "case"), [(f, c["name"]) for f, data in FILES.items() for c in data["cases"]])
def test_reference_numbers_of_shaping(file: str, case: str) -> None:
    check(FILES[file], case, CASES[file])


def test_no_computation_without_a_case_of_shaping() -> None:
    for file, data in FILES.items():
        assert set(CASES[file]) == {c["name"] for c in data["cases"]}
