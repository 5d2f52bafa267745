"""Reference numbers of the base algorithms and of EPO: every case and every key, values and gradients, in float64."""

import math
from typing import Any

import pytest
import torch
from support.epo_terms import EntropyTerms, epo_terms
from support.vectors import Case, Computation, check, f64, leaf, load, numbered
from torch import Tensor

from palaestra.training.advantage import group_advantage
from palaestra.training.aggregate import aggregate, token_weights
from palaestra.training.entropy import Corridor, EntropyOptions, corridor_penalty, phase_weight
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord
from palaestra.training.gigpo import (
    anchor_groups,
    discounted_return,
    episode_return,
    gigpo_advantage,
    step_advantage,
)
from palaestra.training.importance import effective_sample_size, importance_ratio, truncated_importance
from palaestra.training.kl import kl_estimate
from palaestra.training.logprob import logprob_entropy
from palaestra.training.policy_loss import Bounds, PolicyLoss
from palaestra.training.seams import Tokens
from palaestra.training.steps import broadcast_steps, step_mean
from palaestra.training.surrogate import surrogate

FILES = {name: load(name) for name in ("common", "epo")}
FLAT_MODES = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "dr-grpo-mean"]


def entropy_and_logprob(params: Case, inputs: Case) -> Case:
    labels = torch.tensor(inputs["labels"])
    vocab = len(inputs["logits"][0][0])
    results: list[Case] = []
    for chunk in params["chunk_sizes_to_try"]:
        for vocab_chunk in (1, 2, vocab):
            logits = leaf(inputs["logits"])

            def head(
                taken: Tensor, z: Tensor = logits, rows: int = chunk, columns: int = vocab_chunk, **options: Any
            ) -> tuple[Tensor, Tensor]:
                eye = torch.eye(vocab, dtype=torch.float64)
                flat = (z.reshape(-1, vocab), eye, taken.reshape(-1))
                lp, h = logprob_entropy(*flat, chunk=rows, vocab_chunk=columns, **options)
                return lp.view_as(taken), h.view_as(taken)

            logprob, entropy = head(labels)
            logprob_tau, entropy_tau = head(labels, temperature=params["temperature"])
            (gradient,) = torch.autograd.grad(entropy.sum(), logits)
            top2 = [head(torch.full_like(labels, int(i)))[0][0, 0] for i in logits[0, 0].topk(2).indices]
            results.append(
                {
                    "entropy": entropy,
                    "entropy_tau": entropy_tau,
                    "logprob": logprob,
                    "logprob_tau": logprob_tau,
                    "dentropy_dlogits": gradient,
                    "max_entropy": entropy[0, 1],
                    "top2_truncated_entropy_token00": -sum(lp.exp() * lp for lp in top2),
                }
            )
    for other in results[1:]:
        for key, value in other.items():
            torch.testing.assert_close(value, results[0][key], rtol=0, atol=1e-12)
    return results[0]


def group_normalisation(params: Case, inputs: Case) -> Case:
    score, group, traj = f64(inputs["score"]), numbered(inputs["group"]), numbered(inputs["trajectory"])

    def a(normalise: Any, weighting: Any = "trajectory", singleton: Any = "zero") -> Tensor:
        options = {"normalise": normalise, "weighting": weighting, "singleton": singleton, "eps": params["eps"]}
        return group_advantage(score, group, traj, **options)

    return {
        "traj_weighted_std_singleton_zero": a("std"),
        "traj_weighted_std_singleton_raw": a("std", singleton="raw"),
        "traj_weighted_popstd_singleton_zero": a("popstd"),
        "traj_weighted_mean_only_singleton_zero": a("mean"),
        "row_weighted_std": a("std", "row"),
        "row_weighted_mean_only": a("mean", "row"),
        "rloo_traj": a("rloo"),
    }


def ppo_dual_clip_surrogate(params: Case, inputs: Case) -> Case:
    logprob, old, mask = leaf(inputs["logprob"]), f64(inputs["old_logprob"]), f64(inputs["mask"])
    bounds = {"clip_low": params["eps_low"], "clip_high": params["eps_high"], "dual_clip": params["dual_clip_c"]}
    result = surrogate(logprob, old, f64(inputs["advantage"]), mask, **bounds)
    (per_token,) = torch.autograd.grad(result.loss.sum(), logprob, retain_graph=True)
    (mean,) = torch.autograd.grad(aggregate(result.loss, mask, "token-mean"), logprob, retain_graph=True)
    inside = mask.bool()
    unread = torch.zeros_like(old[inside])
    advantage = f64(inputs["advantage"]).expand_as(old)[inside]
    tokens = Tokens(logprob[inside], unread, old[inside], unread, advantage, unread.long())
    logged = PolicyLoss(bounds=Bounds(**bounds)).value(tokens).diagnostics
    metrics = {name: value.double().mean() for name, value in logged.items()}
    return {
        "ratio_masked": result.ratio,
        "loss_token_masked": result.loss,
        "dloss_dlogprob_token_masked": per_token,
        "dtokenmean_dlogprob": mean,
        "clipped": result.clipped,
        "dual_clipped": result.dual_clipped,
        "clipfrac": metrics["clip_fraction"],
        "clipfrac_lower": metrics["dual_clip_fraction"],
        "approx_kl_k1": metrics["approx_kl"],
        "aggregated": {mode: aggregate(result.loss, mask, mode) for mode in FLAT_MODES},
    }


def kl_estimators(params: Case, inputs: Case) -> Case:
    ref, out = f64(inputs["ref_logprob"]), {}
    for kind in ("k1", "k2", "k3", "abs"):
        logprob = leaf(inputs["logprob"])
        out[kind] = kl_estimate(logprob, ref, kind, value_clip=params["k3_clamp"])
        if kind != "abs":
            (out["d" + kind],) = torch.autograd.grad(out[kind].sum(), logprob)
    out["k3_unclamped"] = kl_estimate(f64(inputs["logprob"]), ref, "k3", value_clip=None)
    return out


def aggregation_modes(params: Case, inputs: Case) -> Case:
    loss, mask, step_id = f64(inputs["loss"]), f64(inputs["mask"]), torch.tensor(inputs["step_id"])
    out = {mode: aggregate(loss, mask, mode, step_id=step_id) for mode in [*FLAT_MODES, "traj-turn-token"]}
    for mode in ("seq-mean-token-sum-norm", "dr-grpo-mean"):
        out[f"{mode}(const=8)"] = aggregate(loss, mask, mode, constant=8)
    return out


def gigpo(params: Case, inputs: Case) -> Case:
    reward = f64(inputs["reward"])
    group, traj, anchor = (numbered(inputs[k]) for k in ("group", "trajectory", "anchor"))
    where, columns = anchor_groups(group, anchor), (reward, group, traj, anchor)
    returns, eps, gamma, omega = episode_return(reward, traj), params["eps"], params["gamma"], params["omega"]

    def episode(weighting: Any, normalise: Any) -> Tensor:
        return group_advantage(returns, group, traj, weighting=weighting, normalise=normalise, eps=eps)

    both = {"gamma": gamma, "omega": omega, "eps": eps}
    return {
        "discounted_return": discounted_return(reward, traj, gamma),
        "anchor_group_size": where.bincount()[where],
        "step_adv_mean_norm": step_advantage(*columns, gamma=gamma, normalise="mean", eps=eps),
        "step_adv_mean_std_norm": step_advantage(*columns, gamma=gamma, normalise="std", eps=eps),
        "episode_adv_traj_weighted_mean_norm": episode("trajectory", "mean"),
        "episode_adv_traj_weighted_mean_std_norm": episode("trajectory", "std"),
        "episode_adv_row_weighted_mean_norm": episode("row", "mean"),
        "episode_adv_row_weighted_mean_std_norm": episode("row", "std"),
        "adv_mean_norm_traj_weighted": gigpo_advantage(*columns, normalise="mean", **both),
        "adv_mean_std_norm_row_weighted": gigpo_advantage(*columns, normalise="std", weighting="row", **both),
    }


def truncated_importance_sampling(params: Case, inputs: Case) -> Case:
    columns = f64(inputs["learner_old_logprob"]), f64(inputs["rollout_logprob"]), f64(inputs["mask"])
    cap, keep = params["C"], (params["mask_lo"], params["mask_hi"])
    tis = truncated_importance(*columns, cap=cap)
    sequence = truncated_importance(*columns, level="sequence", cap=cap)
    geometric = truncated_importance(*columns, level="geometric", cap=cap)
    inside = columns[2].bool()
    torch.testing.assert_close(truncated_importance(*columns, cap=None), importance_ratio(*columns))
    return {
        "token_weight_raw": importance_ratio(*columns),
        "token_weight_tis": tis,
        "token_weight_mis": truncated_importance(*columns, mask_range=keep),
        "seq_weight_raw": importance_ratio(*columns, "sequence"),
        "seq_weight_tis": sequence[:, 0],
        "seq_weight_geometric": geometric[:, 0],
        "mean_tis": tis[inside].mean(),
        "ess_fraction": effective_sample_size(tis, columns[2]),
        "token_weight_tis_normalised": truncated_importance(*columns, cap=cap, normalise=True),
    }


def token_to_step_reduction(params: Case, inputs: Case) -> Case:
    value, step_id = f64(inputs["value"]), torch.tensor(inputs["step_id"])
    mean, length = step_mean(value, step_id)
    ragged = [[m for m, n in zip(ms, ns, strict=True) if n] for ms, ns in zip(mean, length, strict=True)]
    return {
        "step_mean": ragged,
        "step_len": [[n for n in ns if n] for ns in length.tolist()],
        "broadcast": broadcast_steps(mean, step_id),
        "mask": (step_id >= 0).long(),
        "traj_mean_of_steps": [sum(ms) / len(ms) for ms in ragged],
        "token_mean_all": aggregate(value, step_id >= 0, "token-mean"),
    }


OPTION_NAMES = {
    "kappa_l": "low_ratio",
    "kappa_r": "high_ratio",
    "alpha": "slope",
    "lam": "entropy_coeff",
    "gamma": "decay",
}


def options_of(params: Case, **more: Any) -> EntropyOptions:
    known = {name: params[key] for key, name in OPTION_NAMES.items() if key in params}
    return EntropyOptions(**known, **more)


def history_of(values: list[float]) -> EntropyHistory:
    return EntropyHistory([EntropyRecord(v, (v,)) for v in values])


class Epo:
    """The [trajectory][turn][token] data of a case as a batch, in either of the two layouts."""

    def __init__(self, params: Case, inputs: Case, layout: str) -> None:
        self.params, self.shape = params, f64(inputs["entropy"]).shape
        b, t, n = self.shape
        rows = (b * t, n) if layout == "step rows" else (b, t * n)
        self.entropy = f64(inputs["entropy"]).reshape(rows).requires_grad_()
        self.mask = f64(inputs["mask"]).reshape(rows)
        turn = torch.arange(t)[None, :, None].expand(b, t, n).reshape(rows)
        self.step_id = torch.where(self.mask > 0, turn, -1)
        self.traj = torch.arange(b).repeat_interleave(t) if layout == "step rows" else torch.arange(b)
        self.reference = history_of(inputs["history"]).reference()
        self.beta = phase_weight(params["k"], params["K"], params["gamma"])

    def terms(self, aggregation: Any, **more: Any) -> tuple[EntropyTerms, Tensor, Tensor]:
        """Terms, total loss and its gradient."""
        options = options_of(self.params, aggregation=aggregation, **more)
        weights = token_weights(self.mask, aggregation, step_id=self.step_id, traj=self.traj)
        columns = self.entropy, self.mask, self.step_id, weights
        terms = epo_terms(*columns, reference=self.reference, beta=self.beta, options=options)
        total = self.params["L_MT"] + terms.loss
        (gradient,) = torch.autograd.grad(total, self.entropy)
        return terms, total, gradient.view(self.shape)


def main_three_trajectories(params: Case, inputs: Case) -> Case:
    step, whole = (_main(Epo(params, inputs, layout)) for layout in ("step rows", "trajectory rows"))
    for key, value in step.items():
        torch.testing.assert_close(torch.as_tensor(whole[key]), torch.as_tensor(value), rtol=0, atol=1e-14)
    return step


def _main(batch: Epo) -> Case:
    hinge, hinge_total, hinge_grad = batch.terms("traj-turn-token")
    flat, flat_total, flat_grad = batch.terms("token-mean")
    indicator, _, _ = batch.terms("traj-turn-token", penalty="indicator")
    flat_indicator, indicator_total, indicator_grad = batch.terms("token-mean", penalty="indicator")
    assert batch.reference is not None
    corridor = Corridor.around(batch.reference, batch.params["kappa_l"], batch.params["kappa_r"])
    low, high = float(corridor.low), float(corridor.high)
    inside = (batch.entropy > low) & (batch.entropy < high) & (batch.mask > 0)
    penalties = {
        kind: torch.where(batch.mask > 0, corridor_penalty(batch.entropy, low, high, kind), 0)
        .detach()
        .view(batch.shape)
        for kind in ("hinge", "indicator")
    }
    return {
        "H_ref": batch.reference,
        "lower": corridor.low,
        "upper": corridor.high,
        "beta_k": batch.beta,
        "L_H_nested": hinge.bonus,
        "L_H_token_mean": flat.bonus,
        "P_hinge": penalties["hinge"],
        "L_smooth_hinge_nested": hinge.smoothing,
        "L_smooth_hinge_token_mean": flat.smoothing,
        "P_indicator": penalties["indicator"],
        "L_smooth_indicator_nested": indicator.smoothing,
        "L_smooth_indicator_token_mean": flat_indicator.smoothing,
        "L_total_hinge_nested": hinge_total,
        "L_total_hinge_token_mean": flat_total,
        "L_total_indicator_token_mean_with_paper_beta": indicator_total,
        "L_total_no_smoothing_nested": batch.terms("traj-turn-token", smoothing=False)[1],
        "dL_dH_hinge_nested": hinge_grad,
        "dL_dH_hinge_token_mean": flat_grad,
        "dL_dH_indicator_token_mean": indicator_grad,
        "fraction_inside_strict_token": inside.sum() / batch.mask.sum(),
        "H_bar_to_append_token_mean": EntropyRecord.measure(batch.entropy, batch.mask, batch.step_id, batch.traj).mean,
    }


def first_step_k0(params: Case, inputs: Case) -> Case:
    batch = Epo(params, inputs, "step rows")
    terms, total, _ = batch.terms("traj-turn-token")
    return {
        "beta_k": batch.beta,
        "L_smooth": terms.smoothing,
        "L_total_nested": total,
        "L_total_token_mean": batch.terms("token-mean")[1],
    }


def schedules(params: Case, inputs: Case) -> Case:
    return {
        "beta_paper": [phase_weight(k, params["K"], params["gamma"]) for k in inputs["k"]],
        "weight_code": [phase_weight(e, params["K"], schedule="code_piecewise") for e in inputs["epoch"]],
    }


def per_turn_reference(params: Case, inputs: Case) -> Case:
    steps = inputs["turn_mean_entropy_per_rl_step"]
    history = EntropyHistory([EntropyRecord(math.fsum(turns) / len(turns), tuple(turns)) for turns in steps])
    aligned, padded = history.reference("per_turn"), history.reference("per_turn_compat")
    assert aligned is not None
    assert padded is not None
    assert len(aligned) == len(padded) == params["max_turns"]
    return {"code_left_zero_pad": padded, "aligned_masked": aligned, "scalar": history.reference("scalar")}


def autograd_through_logits(params: Case, inputs: Case) -> Case:
    logits, mask = leaf(inputs["logits"]), f64(inputs["mask"])
    vocab = logits.shape[-1]
    eye = torch.eye(vocab, dtype=torch.float64)
    _, flat = logprob_entropy(logits.reshape(-1, vocab), eye, torch.zeros(mask.numel(), dtype=torch.int64))
    entropy = flat.view_as(mask)
    entropy.retain_grad()
    step_id = torch.where(mask > 0, 0, -1)
    weights = token_weights(mask, "traj-turn-token", step_id=step_id)
    reference, options = f64(params["H_ref"]), options_of(params)
    terms = epo_terms(entropy, mask, step_id, weights, reference=reference, beta=params["beta"], options=options)
    terms.loss.backward()
    assert entropy.grad is not None
    unit = params["lam"] * weights * params["beta"] * params["alpha"]
    side = torch.where(mask > 0, (entropy.grad + params["lam"] * weights) / unit, 0)
    return {"entropy": entropy, "side": side, "loss": terms.loss, "dloss_dlogits": logits.grad}


CASES: dict[str, dict[str, Computation]] = {
    "common": {
        "entropy_and_logprob_from_logits": entropy_and_logprob,
        "group_normalisation": group_normalisation,
        "ppo_dual_clip_surrogate": ppo_dual_clip_surrogate,
        "kl_estimators": kl_estimators,
        "aggregation_modes": aggregation_modes,
        "gigpo": gigpo,
        "truncated_importance_sampling": truncated_importance_sampling,
        "token_to_step_reduction": token_to_step_reduction,
    },
    "epo": {
        "main_three_trajectories": main_three_trajectories,
        "first_step_k0": first_step_k0,
        "schedules": schedules,
        "per_turn_reference": per_turn_reference,
        "autograd_through_logits": autograd_through_logits,
    },
}


@pytest.mark.parametrize(("file", "case"), [(f, c["name"]) for f, data in FILES.items() for c in data["cases"]])
def test_reference_numbers(file: str, case: str) -> None:
    check(FILES[file], case, CASES[file])


def test_no_computation_without_a_case() -> None:
    for file, data in FILES.items():
        assert set(CASES[file]) == {c["name"] for c in data["cases"]}
