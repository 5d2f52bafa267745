"""AEPO's shares and branches: the reference numbers, and what holds for all."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.vectors import Case, Computation, check, load

from palaestra.agents.branching import (
    BranchRule,
    code_next_consecutive,
    code_segment_entropy,
    next_consecutive,
    segment_entropy,
    split_budget,
    token_entropy,
)

CHECK = settings(max_examples=100, deadline=None, derandomize=True)
ENTROPY = st.floats(0, 8)
TOOLS = st.lists(ENTROPY, max_size=6)
FILE = load("aepo_rollout")


def budget_allocation(params: Case, inputs: Case) -> Case:
    def row(values: Case) -> Case:
        columns = values["k"], values["H_root"], values["H_tool"]
        ours, nearest = (split_budget(*columns, beta=values["beta"], rounding=r) for r in ("code", "nearest"))
        tools = values["H_tool"] or [values["H_root"]]
        return {
            "H_tool_avg": sum(tools) / len(tools),
            "sigma": ours.exact / values["k"],
            "m_real": ours.exact,
            "m_code": ours.begin,
            "m_round": nearest.begin,
            "branch_budget_code": ours.branch,
        }

    return {"rows": [row(values) for values in inputs["rows"]]}


def branch_decision(params: Case, inputs: Case) -> Case:
    constants = {"alpha": params["alpha"], "gamma": params["gamma"], "threshold": params["tau"]}
    rules = {
        d: BranchRule(**constants, rho=params["penalty_per_branch"], decision=d) for d in ("bernoulli", "paper", "code")
    }

    def row(values: Case) -> Case:
        change, count, u = values["H_now"] - values["H_init"], values["consecutive"], values["uniform"]
        return {
            "delta_H": change,
            "penalty": rules["paper"].penalty(count),
            "P_paper": rules["paper"].probability(change, count),
            "branch_paper": rules["paper"].branches(change, count, u),
            "score_code": rules["code"].code_score(change, count, u),
            "branch_code": rules["code"].branches(change, count, u),
            "implied_probability_code": rules["code"].code_probability(change, count),
            "branch_bernoulli": rules["bernoulli"].branches(change, count, u),
        }

    return {"rows": [row(values) for values in inputs["rows"]]}


def segment_entropy_from_topk(params: Case, inputs: Case) -> Case:
    topk, positions = inputs["topk_logprobs"], params["max_positions"]
    mean = segment_entropy(topk, positions=positions)
    return {
        "per_token": [token_entropy(logprobs) for logprobs in topk],
        "sum_over_ln_vocab": code_segment_entropy(topk, params["vocab_size"], positions=positions),
        "mean_nats": mean,
        "mean_over_ln_vocab": mean / math.log(params["vocab_size"]),
        "tail_lumped_per_token": [token_entropy(logprobs, tail=True) for logprobs in topk],
    }


def consecutive_counter(params: Case, inputs: Case) -> Case:
    code, spec = [0, 0], [0, 0]
    codes, specs = [], []
    for flags in inputs["branched"]:
        code = code_next_consecutive(code, flags)
        spec = [next_consecutive(count, flag) for count, flag in zip(spec, flags, strict=True)]
        codes.append(code)
        specs.append(spec)
    return {"counter_code": codes, "counter_spec": specs}


CASES: dict[str, Computation] = {
    "budget_allocation": budget_allocation,
    "branch_decision": branch_decision,
    "segment_entropy_from_topk": segment_entropy_from_topk,
    "consecutive_counter": consecutive_counter,
}


@pytest.mark.parametrize("case", [c["name"] for c in FILE["cases"]])
def test_reference_numbers_of_branching(case: str) -> None:
    check(FILE, case, CASES)


@CHECK
@given(
    k=st.integers(1, 64),
    root=ENTROPY,
    tools=TOOLS,
    beta=st.floats(0, 10),
    rounding=st.sampled_from(["code", "nearest"]),
)
def test_the_split_is_a_split(k: int, root: float, tools: list[float], beta: float, rounding: Any) -> None:
    split = split_budget(k, root, tools, beta=beta, rounding=rounding)
    assert 1 <= split.begin <= k
    assert split.begin + split.branch == k
    more = split_budget(k, root + 0.5, tools, beta=beta, rounding=rounding)
    assert not tools or more.begin >= split.begin
    fewer = split_budget(k, root, [h + 0.5 for h in tools], beta=beta, rounding=rounding)
    assert fewer.begin <= split.begin


@CHECK
@given(k=st.integers(1, 64), root=ENTROPY, tools=TOOLS)
def test_without_sensitivity_halves(k: int, root: float, tools: list[float]) -> None:
    assert split_budget(k, root, tools, beta=0.0).begin == min(k, k // 2 + 1)
    assert split_budget(k, root, tools, beta=0.0, rounding="nearest").begin == max(1, math.floor(k / 2 + 0.5))


@CHECK
@given(change=st.floats(-5, 5), more=st.floats(0, 3), count=st.integers(0, 30))
def test_probability_rises_with_entropy_and_falls_with_branches(change: float, more: float, count: int) -> None:
    rule = BranchRule()

    def p(dh: float, branches: int) -> float:
        return min(max(rule.probability(dh, branches), 0.0), 1.0)

    assert p(change + more, count) >= p(change, count)
    assert p(change, count + 1) <= p(change, count)
    if count >= 20:
        assert p(change, count) == 0
        assert not any(BranchRule(decision=d).branches(change, count, 0.0) for d in ("bernoulli", "paper", "code"))


@pytest.mark.parametrize("decision", ["bernoulli", "code"])
@pytest.mark.parametrize(("change", "count"), [(0.4, 0), (0.4, 3), (-0.2, 0), (1.4, 6), (-3.0, 2)])
def test_branches_are_as_frequent_as_they_should_be(decision: Any, change: float, count: int) -> None:
    rule, draws, random_ = BranchRule(decision=decision), 10_000, random.Random(7)
    wanted = rule.code_probability(change, count) if decision == "code" else rule.probability(change, count)
    wanted = min(max(wanted, 0.0), 1.0)
    found = sum(rule.branches(change, count, random_.random()) for _ in range(draws)) / draws
    assert abs(found - wanted) <= 4 * math.sqrt(wanted * (1 - wanted) / draws) + 1e-12


def test_without_base_probability_and_weight_there_are_no_branches() -> None:
    rule = BranchRule(alpha=0.0, gamma=0.0)
    assert not any(rule.branches(change, 0, 0.0) for change in (-2.0, 0.0, 5.0))


@CHECK
@given(logits=st.lists(st.floats(-5, 5), min_size=2, max_size=12), keep=st.integers(1, 12))
def test_truncated_entropy_is_a_lower_bound_and_the_tail_a_better_one(logits: list[float], keep: int) -> None:
    top = max(logits)
    total = top + math.log(sum(math.exp(x - top) for x in logits))
    logprobs = sorted((x - total for x in logits), reverse=True)
    whole = token_entropy(logprobs)
    cut, lumped = token_entropy(logprobs[:keep]), token_entropy(logprobs[:keep], tail=True)
    assert cut <= lumped + 1e-12
    assert lumped <= whole + 1e-6


def test_short_segments_have_the_tokens_they_have() -> None:
    topk = [[-0.1, -2.5], [-0.7, -0.9]]
    assert segment_entropy([]) == 0.0
    assert segment_entropy(topk, positions=1) == token_entropy(topk[0])
    assert segment_entropy([[0.0, -math.inf]]) == 0.0
    assert math.copysign(1, segment_entropy([[0.0, -math.inf]])) == 1


@CHECK
@given(flags=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_a_path_s_counter_does_not_see_the_others(flags: list[tuple[bool, bool]]) -> None:
    count = alone = 0
    for own, _ in flags:
        count = next_consecutive(count, own)
        alone = alone + 1 if own else 0
        assert count == alone
