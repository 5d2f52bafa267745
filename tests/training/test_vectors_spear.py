"""Reference numbers of SPEAR: every case and every key, values and gradients, in float64."""

from typing import Any

import pytest
import torch
from support.shaping import random_batch
from support.vectors import Case, Computation, check, f64, leaf, load
from torch import Tensor

from palaestra.training.aggregate import Mode, aggregate
from palaestra.training.baseline import BaselineBuffer
from palaestra.training.covariance import clip_cov, covariance, kl_cov, pick, pick_generator
from palaestra.training.curriculum import imitation_weight, tool_call_weight
from palaestra.training.imitation import fresh, recalibrated, replayed
from palaestra.training.plugins.widest_groups import WidestGroups
from palaestra.training.returns import returns_of
from palaestra.training.seams import Moment
from palaestra.training.surrogate import surrogate
from palaestra.training.tool_reward import composite_reward, tool_call_reward

DATA = load("spear")


def schedules(params: Case, inputs: Case) -> Case:
    return {
        "mu": [tool_call_weight(step, params["T_decay"]) for step in inputs["step"]],
        "gamma": [params["base_coefficient"] * imitation_weight(step, params["T_warmup"]) for step in inputs["step"]],
    }


def composite(params: Case, inputs: Case) -> Case:
    calls, outcome = torch.tensor(inputs["n_tool_calls"]), f64(inputs["outcome"])
    mu = tool_call_weight(params["step"], params["T_decay"])
    limits = {"per_call": params["per_call"], "cap": params["cap"]}
    tool = tool_call_reward(calls, **limits)
    flag = tool_call_reward(calls, outcome=outcome, **limits)
    return {
        "tool_call": tool,
        "mu": mu,
        "reward": composite_reward(outcome, tool, mu, f64(inputs["format"])),
        "reward_alt_positive_flag_no_format": composite_reward(outcome, flag, mu),
    }


def baseline(params: Case, inputs: Case) -> Case:
    buffer, trace = BaselineBuffer(params["capacity"]), []
    for entry in inputs["pushes"]:
        buffer.push(entry["group_means"])
        trace.append({"step": entry["step"], "contents": list(buffer.contents), "p50": buffer.p50()})
    return {"trace": trace}


def recalibration(params: Case, inputs: Case) -> Case:
    rows = inputs["trajectories"]
    names = [row["id"] for row in rows]
    reward, advantage = f64([row["R"] for row in rows]), f64([row["A_hat"] for row in rows])
    step = torch.tensor([row["step"] for row in rows])
    stored = advantage > 0
    left = stored & fresh(step, params["latest_step"], params["tolerate_steps"])
    again = recalibrated(reward, params["p50"])

    def named(which: Tensor) -> list[str]:
        return [name for name, chosen in zip(names, which.tolist(), strict=True) if chosen]

    return {
        "stored": named(stored),
        "after_staleness": named(left),
        "recalibrated": [{"id": names[i], "A_tilde": float(again[i])} for i in left.nonzero()[:, 0].tolist()],
        "replayed_strict": named(left & replayed(advantage, again)),
        "replayed_nonstrict": named(left & replayed(advantage, again, strict=False)),
    }


def group_filter(params: Case, inputs: Case) -> Case:
    groups = inputs["groups"]
    batch = random_batch(0, groups=len(groups), size=4)
    batch = batch.with_(reward=f64([value for values in groups.values() for value in values]))
    keep = WidestGroups(params["ratio"])(batch, Moment(1, 10)).view(len(groups), 4)
    assert torch.equal(keep.any(1), keep.all(1))
    return {
        "std": dict(zip(groups, returns_of(batch).std.tolist(), strict=True)),
        "kept": [name for name, kept in zip(groups, keep[:, 0].tolist(), strict=True) if kept],
    }


def columns(inputs: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    old, advantage, mask = (f64(inputs[key]) for key in ("old_logprob", "advantage", "mask"))
    return leaf(inputs["logprob"]), old, advantage, mask


def clip_covariance(params: Case, inputs: Case) -> Case:
    logprob, old, advantage, mask = columns(inputs)
    bounds = {"clip_low": params["eps_low"], "clip_high": params["eps_high"]}

    def run(rate: float, low: float) -> Any:
        options = {"rate": rate, "low": low, "high": params["omega_ub"], **bounds}
        return clip_cov(logprob, old, advantage, mask, generator=pick_generator(0, 0), **options)

    every, none = run(params["rate_large"], params["omega_lb"]), run(params["rate_large"], params["omega_ub"])
    eligible = every.eligible.nonzero().tolist()
    first = torch.zeros_like(every.eligible)
    first[tuple(eligible[0])] = True
    mean = {
        "all": aggregate(every.loss, mask, "token-mean"),
        "none": aggregate(none.loss, mask, "token-mean"),
        "first": aggregate(torch.where(first, 0, none.loss), mask, "token-mean"),
    }
    moments, many = covariance(advantage, logprob, mask), torch.ones(12, dtype=torch.bool)
    generator = pick_generator(0, 0)
    limits = {name: int(pick(many, 12, params[f"rate_{name}"], generator).sum()) for name in ("small", "large")}
    return {
        "cov_masked": moments.value,
        "mean_advantage": moments.mean_advantage,
        "mean_logprob": moments.mean_logprob,
        "clipped_by_ratio": every.clipped,
        "eligible": eligible,
        **{f"max_picked_rate_{name}": limit for name, limit in limits.items()},
        **{f"loss_token_mean_{name}": value for name, value in mean.items()},
        "loss_seq_sum_norm_all": aggregate(every.loss, mask, "seq-mean-token-sum-norm"),
        "dtokenmean_dlogprob_all": torch.autograd.grad(mean["all"], logprob)[0],
        "dtokenmean_dlogprob_none": torch.autograd.grad(mean["none"], logprob)[0],
    }


def kl_covariance(params: Case, inputs: Case) -> Case:
    logprob, old, advantage, mask = columns(inputs)
    result = kl_cov(logprob, old, advantage, mask, rate=params["rate"], coeff=params["ppo_kl_coef"])
    value = covariance(advantage, logprob, mask).value
    selected = sorted(result.picked.nonzero().tolist(), key=lambda place: -float(value[tuple(place)]))
    return {"selected": selected, "loss_token_mean": aggregate(result.loss, mask, "token-mean")}


def total_objective(params: Case, inputs: Case) -> Case:
    bounds = {"clip_low": params["eps_low"], "clip_high": params["eps_high"]}
    on, replay = inputs["on"], inputs["replay"]
    mask = f64(on["mask"])
    advantage = f64(on["advantage"])
    fresh_loss = surrogate(
        f64(on["logprob"]), f64(on["old_logprob"]), advantage, mask, **bounds, dual_clip=params["dual_clip_c"]
    ).loss
    again = recalibrated(f64(replay["reward"]), params["p50"])
    logprob, seen = leaf(replay["logprob"]), f64(replay["mask"])
    behaviour = f64(replay["behaviour_logprob"])
    own = surrogate(logprob, behaviour, again[:, None].expand_as(seen), seen, **bounds, dual_clip=None)
    gamma = imitation_weight(params["step"], params["T_warmup"])
    found: Case = {"gamma": gamma, "A_tilde": again, "sil_clipped": own.clipped}
    modes: dict[str, Mode] = {"token_mean": "token-mean", "sum_norm": "seq-mean-token-sum-norm"}
    for name, mode in modes.items():
        l_on = aggregate(fresh_loss, mask, mode, constant=params["norm_constant"])
        l_sil = aggregate(own.loss, seen, mode, constant=params["norm_constant"])
        found |= {f"L_on_{name}": l_on, f"L_sil_{name}": l_sil, f"loss_{name}": l_on + gamma * params["coef"] * l_sil}
    (gradient,) = torch.autograd.grad(found["L_sil_token_mean"], logprob)
    return found | {"dL_sil_token_mean_dlogprob": gradient}


CASES: dict[str, Computation] = {
    "schedules": schedules,
    "composite_reward": composite,
    "baseline_buffer_fifo": baseline,
    "recalibration_and_filter": recalibration,
    "low_variance_group_filter": group_filter,
    "clip_cov": clip_covariance,
    "kl_cov_option": kl_covariance,
    "total_objective": total_objective,
}


@pytest.mark.parametrize("case", [c["name"] for c in DATA["cases"]])
def test_reference_numbers_of_spear(case: str) -> None:
    check(DATA, case, CASES)


def test_no_computation_without_a_case_of_spear() -> None:
    assert set(CASES) == {c["name"] for c in DATA["cases"]}
