"""What every registered algorithm and plug-in keeps to, so that a new one cannot skip it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import tiny_model
from support.shaping import padded, permuted, random_batch

from palaestra.config import PRESETS, AlgorithmConfig, Recipe, convert, load_recipe, parse_recipe, to_dict
from palaestra.errors import ConfigError, TrainingError, UnknownNameError
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, build_algorithm, resolve_algorithm
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import fingerprint
from palaestra.training.learner import Learner, Update
from palaestra.training.plugins import PLUGINS
from palaestra.training.plugins.overlong import OverlongPenalty
from palaestra.training.plugins.uniform_groups import UniformGroups
from palaestra.training.policy_loss import POLICY_LOSSES
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.teachers import Teachers
from palaestra.trajectories.record import Node, StepRecord, Trajectory

MOMENT = Moment(1, 10)
NAMES = sorted(ALGORITHMS)
MIXES: list[list[str]] = [
    *([f"algorithm.name={name}"] for name in NAMES),
    *(["algorithm.name=grpo", f"algorithm.plugins=[{name}]"] for name in PLUGINS if name not in ALGORITHMS),
    *(["algorithm.name=grpo", f"algorithm.policy_loss={name}"] for name in POLICY_LOSSES),
    ["algorithm.name=epo", "algorithm.plugins=[uniform_groups, epo, empg, aepo]"],
    ["algorithm.name=gigpo", "algorithm.plugins=[gigpo, overlong, mismatch]", "algorithm.policy_loss=span_ratio"],
]
"""Every algorithm, every plug-in on its own, and some together."""
EVERY = pytest.mark.parametrize("overrides", MIXES, ids=lambda overrides: "+".join(o.split(".")[-1] for o in overrides))
DR_BOT = ["normalise=std", "aggregation=seq-mean-token-mean", "clip_high=0.2", "dual_clip=3"]
SIMPLE = ("normalise=std", "clip_low=0.2", "clip_high=0.2", "dual_clip=3")
"""Of an algorithm without standard deviation and clip."""
NEUTRAL: dict[str, list[str]] = {
    "aepo": ["settings.aepo.advantage_weight=0", "policy_loss=clip", "aggregation=seq-mean-token-mean"],
    "asym_clip": ["clip_low=0.2"],
    "dapo": ["clip_high=0.2", "aggregation=seq-mean-token-mean", "plugins=[]"],
    "dr_grpo": ["normalise=std", "aggregation=seq-mean-token-mean"],
    "empg": [
        *("settings.empg.k=0", "settings.empg.zeta=0", "settings.empg.center=none", "settings.empg.eps_g=0"),
        "aggregation=seq-mean-token-mean",
    ],
    "epo": ["settings.epo.entropy_coeff=0"],
    "gigpo": ["settings.gigpo.omega=0"],
    "grpo": [],
    "gspo": ["policy_loss=clip", "clip_low=0.2", "clip_high=0.2", "dual_clip=3"],
    "hpt": ["settings.hpt.gamma=-1", "entropy_coeff=0", *SIMPLE],
    "knapsack": ["settings.knapsack.share=0"],
    "dr_bot": ["settings.well_formed.incomplete=false", "settings.widest_groups.part=1", *DR_BOT],
    "spear": [
        *("settings.well_formed.incomplete=false", "settings.widest_groups.part=1", "settings.clip_cov.rate=0"),
        *("settings.outcome_scale.factor=1", "settings.tool_reward.schedule=none", "settings.self_imitation.coef=0"),
        *DR_BOT,
    ],
    "reinforce": [*SIMPLE],
    "rloo": ["normalise=std"],
    "spo": ["settings.spo_tracker.baseline=false", "settings.spo_tracker.sampling=false"],
}
"""Settings with which an algorithm is GRPO."""
NOT_GRPO = {"ppo"}
"""Algorithms that no settings make GRPO."""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe('name: x\ntasks: {train: "a:train", max_turns: 4}\nagent: {max_tokens: 6}\n', overrides)


def build(*overrides: str) -> Algorithm:
    return build_algorithm(recipe(*overrides))


def episodes(rewards: tuple[float, ...] = (0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1), seed: int = 0) -> list[Trajectory]:
    """Random talk in groups of four, of one to three turns."""
    g = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=g))

    trajectories = []
    for number, reward in enumerate(rewards):
        nodes: list[Node] = []
        steps: list[StepRecord] = []
        for _ in range(draw(1, 4)):
            nodes.append(Node(ids=[draw(1, 300) for _ in range(draw(1, 6))]))
            ids = [draw(1, 300) for _ in range(draw(1, 5))]
            nodes.append(Node(ids=ids, sampled=True, logprobs=[-5.0] * len(ids), entropies=[5.0] * len(ids)))
            steps.append(StepRecord(observation=str(draw(0, 3)), action="look", reward=0, completion=len(nodes) - 1))
        steps[-1].reward = float(reward)
        group, total = str(number // 4), float(reward)
        trajectories.append(
            Trajectory(id=str(number), env="", task="", group=group, total_reward=total, nodes=nodes, steps=steps)
        )
    return trajectories


def learner(*overrides: str, **config: Any) -> Learner:
    found = recipe(*overrides, *(f"learner.{key}={value}" for key, value in config.items()))
    model, algorithm = tiny_model(), build_algorithm(found)
    reference = tiny_model(1) if "ref_logprob" in algorithm.requires else None
    return Learner(model, algorithm, config=found.learner, optimiser=found.optimiser, reference=reference)


def update(subject: Learner, batch: Batch) -> tuple[Update, dict[str, torch.Tensor]]:
    """The update, and the gradients of its (last) step."""
    found: dict[str, torch.Tensor] = {}
    model, step = subject.policy.model, subject.optimiser.step

    def keep(lr: float) -> float:
        found.update({name: p.grad.clone() for name, p in model.named_parameters()})
        return step(lr)

    subject.optimiser.step = keep  # type: ignore[method-assign]
    return subject.update(batch, MOMENT), found


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_GRPO])
def test_the_neutral_setting_is_grpo(name: str) -> None:
    batch = build_rows(episodes()).batch
    neutral = learner(f"algorithm.name={name}", *(f"algorithm.{o}" for o in NEUTRAL[name]), mini_batches=2)
    ours, grpo = update(neutral, batch), update(learner("algorithm.name=grpo", mini_batches=2), batch)
    assert_same(ours[1], grpo[1], atol=0.0 if name != "gspo" else 1e-7)
    assert ours[0].metrics["loss"] == grpo[0].metrics["loss"]


@EVERY
def test_micro_batches_change_nothing(overrides: list[str]) -> None:
    batch = build_rows(episodes()).batch
    whole = update(learner(*overrides, micro_batch_tokens=10**6), batch)
    for size in (30, 60):
        parts = update(learner(*overrides, micro_batch_tokens=size), batch)
        assert_same(parts[1], whole[1])
        for key in ("loss", "surrogate", "grad_norm", "clip_fraction"):
            assert parts[0].metrics[key] == pytest.approx(whole[0].metrics[key], abs=1e-6)


@EVERY
def test_order_of_episodes_changes_nothing(overrides: list[str]) -> None:
    expected = update(learner(*overrides), build_rows(episodes()).batch)[1]
    assert_same(update(learner(*overrides), build_rows(episodes()[::-1]).batch)[1], expected)


@EVERY
def test_what_is_masked_out_changes_no_advantage(overrides: list[str]) -> None:
    algorithm, batch = build(*overrides), build_rows(episodes()).batch
    entropy = torch.rand(batch.shape, generator=torch.Generator().manual_seed(1))
    batch = batch.with_(old_entropy=entropy, old_logprob=-entropy)

    def prepared(batch: Batch) -> Batch:
        zero = torch.zeros(batch.shape)
        extra = {provider.column: zero for provider in algorithm.parts.providers if isinstance(provider, Teachers)}
        return algorithm.prepare(algorithm.select(batch.with_(ref_logprob=zero, extra=extra), MOMENT), MOMENT)

    expected, found = prepared(batch).advantage, prepared(padded(batch, 3, math.nan)).advantage
    assert expected is not None
    assert found is not None
    torch.testing.assert_close(found[:, : batch.shape[1]], expected, rtol=0, atol=1e-6)
    assert not found[:, batch.shape[1] :].any()
    assert not expected.requires_grad


@EVERY
@pytest.mark.parametrize("rewards", [(1.0,) * 8, (0.0,) * 8, (9.9,) * 4 + (0.0, 1.0, 1.0, 0.0), (0.0, 1.0, 3.0, -2.0)])
def test_degenerate_rewards_stay_finite(overrides: list[str], rewards: tuple[float, ...]) -> None:
    subject = learner(*overrides)
    result = subject.update(build_rows(episodes(rewards)).batch, MOMENT)
    assert all(math.isfinite(v) for v in result.metrics.values() if v is not None)
    advantage = result.batch.advantage
    assert advantage is not None
    assert advantage.isfinite().all()
    assert not advantage[~result.batch.mask].any()


@EVERY
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_an_error(overrides: list[str], bad: float) -> None:
    subject = learner(*overrides)
    before = fingerprint(subject.policy.model)
    batch = build_rows(episodes()).batch
    batch.reward[5] = bad
    with pytest.raises(TrainingError, match=r"iteration 1: the reward of trajectory 5 is not finite .*environment"):
        subject.update(batch, MOMENT)
    assert fingerprint(subject.policy.model) == before


@EVERY
def test_turn_gaps_and_rows_without_policy_tokens(overrides: list[str]) -> None:
    rows = build_rows(episodes())
    batch, keep = rows.batch, torch.ones(len(rows.batch.ids), dtype=torch.bool)
    keep[2] = False
    mask = batch.mask & keep[:, None] & (batch.step_id != 1)
    result = learner(*overrides).update(batch.with_(mask=mask, step_id=torch.where(mask, batch.step_id, -1)), MOMENT)
    assert math.isfinite(result.metrics["loss"] or 0)


@EVERY
def test_a_batch_without_policy_tokens_takes_no_step(overrides: list[str]) -> None:
    batch = build_rows(episodes()).batch
    nothing = torch.zeros_like(batch.mask)
    subject = learner(*overrides)
    before = fingerprint(subject.policy.model)
    result = subject.update(batch.with_(mask=nothing, step_id=torch.full_like(batch.step_id, -1)), MOMENT)
    assert not result.metrics["loss"]
    assert fingerprint(subject.policy.model) == before


@EVERY
def test_mini_batches_share_one_set_of_advantages(overrides: list[str]) -> None:
    """Statistics are taken once, on the whole iteration, before it is cut."""
    batch = build_rows(episodes()).batch
    one, two = (learner(*overrides, mini_batches=n).update(batch, MOMENT).batch.advantage for n in (1, 3))
    assert torch.equal(one, two)  # type: ignore[arg-type]


@EVERY
def test_state_comes_back(overrides: list[str]) -> None:
    first, second = build(*overrides), build(*overrides)
    batch = build_rows(episodes()).batch
    subject = learner(*overrides)
    subject.update(batch, MOMENT)
    second.load_state_dict(subject.algorithm.state_dict())
    first.load_state_dict(second.state_dict())
    assert first.state_dict() == subject.algorithm.state_dict()


@EVERY
def test_groups_of_one_are_refused_where_they_say_nothing(overrides: list[str]) -> None:
    config = recipe(*overrides).algorithm
    alone = config.normalise == "none" or build(*overrides).parts.advantage is not None
    if alone and not any(PLUGINS[name].groups for name in config.plugins):
        build(*overrides, "rollout.group_size=1")
    else:
        with pytest.raises(ConfigError, match="rollout.group_size 1"):
            build(*overrides, "rollout.group_size=1")
    left = [episodes()[1], episodes()[5]]  # the others of their groups were cut off
    result = learner(*overrides).update(build_rows(left).batch, MOMENT)
    assert all(math.isfinite(v) for v in result.metrics.values() if v is not None)


def test_an_entropy_history_that_is_empty_after_a_resume_means_no_smoothing() -> None:
    fresh, resumed = build("algorithm.name=epo"), build("algorithm.name=epo")
    resumed.load_state_dict(fresh.state_dict())
    names = [term.name for term in resumed.bind(Moment(7, 10), random_batch(0))]
    assert names == ["surrogate", "entropy_bonus"]


# Presets


def test_what_a_recipe_says_beats_what_the_algorithm_prefers() -> None:
    dapo = recipe("algorithm.name=dapo", "algorithm.clip_high=0.2").algorithm
    assert (dapo.clip_high, dapo.aggregation, dapo.plugins) == (0.2, "token-mean", ("uniform_groups", "overlong"))
    assert AlgorithmConfig(name="gspo").clip_high == 4e-4
    assert AlgorithmConfig(name="grpo").clip_high == AlgorithmConfig(name="unknown").clip_high == 0.2


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_reads_back_to_itself(name: str, tmp_path: Path) -> None:
    config = resolve_algorithm(recipe(f"algorithm.name={name}").algorithm)
    assert convert(to_dict(config), AlgorithmConfig) == config
    assert set(PRESETS.get(name, {})) <= set(to_dict(config))
    assert set(config.plugins) <= set(config.settings)
    shipped = Path(__file__).parents[2] / "recipes" / "demo.yaml"
    build_algorithm(load_recipe(shipped, [f"algorithm.name={name}"]))


def test_every_preset_is_of_an_algorithm() -> None:
    assert set(PRESETS) <= set(ALGORITHMS)
    assert set(NEUTRAL) | NOT_GRPO == set(ALGORITHMS)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["name=grpo", "plugins=[empg, empg]"], "a plug-in is named twice"),
        (["name=empg", "plugins=[aepo]"], "leaves out 'empg', which algorithm.name stands for: add it, or use"),
        (["plugins=[epo, mismatch]", "settings.mismatch.level=row"], "settings.mismatch.level: invalid enum value"),
        (["name=gigpo", "normalise=rloo"], "the plug-in gigpo has algorithm.normalise std or mean, not rloo"),
        (["name=gigpo", "normalise=none"], "the plug-in gigpo has algorithm.normalise std or mean, not none"),
        (["settings.empg.zta=1"], "did you mean 'zeta'"),
        (["settings.empg.percentile=0.5"], "settings.empg.percentile: expected `float` < 0.5"),
        (["name=aepo", "plugins=[aepo, branching]", "settings.aepo.branching=true"], "each bring their own planner"),
        (["settings.aepo.advantage_weight=-1"], "advantage_weight: expected `float` >= 0.0"),
        (["settings.overlong.unit=characters"], "algorithm.settings.overlong.unit: invalid enum value"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*(f"algorithm.{o}" for o in overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plugins=[emgp]", "unknown plug-in 'emgp'; did you mean 'empg'"),
        ("plugins=[uniform_group]", "unknown plug-in 'uniform_group'; did you mean 'uniform_groups'"),
        ("policy_loss=gpso", "unknown policy loss 'gpso'; did you mean 'gspo'"),
        ("name=dpao", "unknown algorithm 'dpao'; did you mean 'dapo'"),
    ],
)
def test_unknown_names_have_the_nearest(override: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        build(f"algorithm.{override}")


@pytest.mark.parametrize("name", ["empg", "aepo"])
def test_shapers_need_the_learner_s_entropies(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm.plugins \({name}\) read the learner's log-probs"):
        build(f"algorithm.name={name}", "learner.old_logprobs=rollout")
    assert {"old_entropy", "scored"} <= build(f"algorithm.name={name}").requires
    assert "scored" not in build("algorithm.name=aepo", "algorithm.settings.aepo.advantage_weight=0").requires


# Filters and rewards


def test_uniform_groups_leave_the_update_with_their_denominators() -> None:
    rows = episodes()
    every, mixed = build_rows(rows).batch, build_rows(rows[:8]).batch
    filtered = update(learner("algorithm.name=dapo"), every)
    alone = update(learner("algorithm.name=dapo"), mixed)
    assert_same(filtered[1], alone[1], atol=1e-7)
    assert filtered[0].metrics["kept_fraction"] == pytest.approx(8 / 12)
    assert filtered[0].metrics["tokens_trained"] == alone[0].metrics["tokens_trained"]
    for part in learner("algorithm.name=dapo", mini_batches=2)._mini_batches(filtered[0].batch, MOMENT):
        assert 3 <= len(set(filtered[0].batch.traj[part].tolist()) & set(range(8))) == len(part)


def test_a_group_is_uniform_up_to_rounding() -> None:
    batch = random_batch(0, groups=2, size=3)
    third = 1 / 3
    rewards = torch.tensor([third, 1 - 2 * third, third, 0.0, 0.0, 1e-3], dtype=torch.float64)
    assert UniformGroups()(batch.with_(reward=rewards), MOMENT).tolist() == [False] * 3 + [True] * 3


def test_the_overlong_penalty_grows_over_the_buffer() -> None:
    batch = random_batch(2)
    counts = torch.zeros(9).index_add(0, batch.traj, batch.mask.sum(1).float())
    penalty = OverlongPenalty(limit=8, buffer=4, weight=2.0)(batch, MOMENT)
    expected = [-2.0 * min(1.0, max(0.0, (n - 4) / 4)) for n in counts.tolist()]
    assert penalty.tolist() == pytest.approx(expected)
    assert penalty.dtype == torch.float64
    hard = OverlongPenalty(limit=5, buffer=0)(batch, MOMENT)
    assert hard.tolist() == [-1.0 if n > 5 else 0.0 for n in counts.tolist()]
    turns = [len(set(row[row >= 0].tolist())) for row in batch.step_id]
    by_turn = OverlongPenalty(limit=4, buffer=2, unit="turns")(batch, MOMENT)
    assert by_turn.tolist() == pytest.approx([-min(1.0, max(0.0, (n - 2) / 2)) for n in turns])


def test_a_penalty_lowers_the_return_and_the_last_turn() -> None:
    batch = build_rows(episodes()).batch
    assert batch.turns is not None
    penalty = -torch.arange(12, dtype=torch.float64)
    lower = batch.rewarded(penalty)
    assert torch.equal(lower.reward, batch.reward + penalty[batch.traj])
    assert lower.turns is not None
    change = lower.turns.reward - batch.turns.reward
    assert torch.equal(torch.zeros(12).double().index_add(0, batch.turns.traj, change), penalty)
    ends = torch.cat((batch.turns.traj[1:] != batch.turns.traj[:-1], torch.tensor([True])))
    assert not change[~ends].any()


def test_dapo_s_longest_episode_is_the_recipe_s() -> None:
    (penalty,) = build("algorithm.name=dapo").parts.rewards
    assert penalty == OverlongPenalty(24, 0.2 * 24)
    (turns,) = build("algorithm.name=dapo", "algorithm.settings.overlong.unit=turns").parts.rewards
    assert turns == OverlongPenalty(4, 0.8, unit="turns")
    (own,) = build("algorithm.name=dapo", "algorithm.settings.overlong={limit: 10, penalty: 5}").parts.rewards
    assert own == OverlongPenalty(10, 2, 5)


def test_dr_grpo_divides_by_what_an_episode_can_sample() -> None:
    (term,) = build("algorithm.name=dr_grpo").bind(MOMENT, random_batch(0))
    assert (term.aggregation, term.constant) == ("dr-grpo-mean", 24)
    (own,) = build("algorithm.name=dr_grpo", "algorithm.aggregation_constant=100").bind(MOMENT, random_batch(0))
    assert own.constant == 100


def test_reinforce_is_the_return_times_the_score() -> None:
    batch = build_rows(episodes()).batch
    result = learner("algorithm.name=reinforce").update(batch, MOMENT)
    assert result.batch.advantage is not None
    expected = torch.where(batch.mask, batch.reward[:, None].float(), 0.0)
    assert torch.equal(result.batch.advantage, expected)


def test_permuting_rows_permutes_filters() -> None:
    batch = random_batch(0)
    batch = batch.with_(reward=torch.where(batch.group == 1, 2.0, batch.reward))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(UniformGroups()(permuted(batch, order), MOMENT), UniformGroups()(batch, MOMENT)[order])
