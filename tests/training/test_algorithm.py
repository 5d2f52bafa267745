import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.epo_terms import epo_terms

from palaestra.config import Recipe, parse_recipe
from palaestra.errors import CheckpointError, ConfigError, UnknownNameError
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, build_algorithm, resolve_algorithm
from palaestra.training.batch import Batch
from palaestra.training.entropy import EntropyOptions, phase_weight
from palaestra.training.entropy_history import EntropyHistory, EntropyRecord
from palaestra.training.seams import BoundTerm, Moment, Tokens

FIRST, LATER = Moment(0, 120), Moment(3, 120)


def recipe(*overrides: str) -> Recipe:
    return parse_recipe('name: x\ntasks: {train: "a:train"}\n', overrides)


def build(*overrides: str) -> Algorithm:
    return build_algorithm(recipe(*overrides))


def batch(entropy: float = 1.0) -> Batch:
    """Two groups of two rows; the first group differs in reward."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[0, 1, 1, 0, 1], [0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 1, 0, 0]]).bool()
    step = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    values = torch.rand(4, 5, generator=generator)
    return Batch(
        ids=torch.ones(4, 5, dtype=torch.int64),
        length=torch.full((4,), 5),
        mask=mask,
        step_id=torch.where(mask, step, -1),
        traj=torch.arange(4),
        group=torch.tensor([0, 0, 1, 1]),
        reward=torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64),
        rollout_logprob=torch.where(mask, -values, 0),
        rollout_entropy=torch.where(mask, entropy * values, 0),
        old_logprob=torch.where(mask, -values, 0),
        old_entropy=torch.where(mask, entropy * values, 0),
    )


def tokens(data: Batch) -> Tokens:
    assert data.advantage is not None
    assert data.old_logprob is not None
    assert data.old_entropy is not None
    return Tokens(
        logprob=(data.old_logprob[data.mask] + 0.1).requires_grad_(),
        entropy=data.old_entropy[data.mask].clone().requires_grad_(),
        old_logprob=data.old_logprob[data.mask],
        rollout_logprob=data.rollout_logprob[data.mask],
        advantage=data.advantage[data.mask],
        step_id=data.step_id[data.mask],
        ref_logprob=data.old_logprob[data.mask] - 0.2,
    )


def loss_of(terms: tuple[BoundTerm, ...], data: Batch, at: Tokens) -> torch.Tensor:
    return torch.stack([(t.weights(data)[data.mask] * t.value(at).value).sum() for t in terms]).sum()


def test_grpo_is_the_policy_loss_alone() -> None:
    algorithm = build("algorithm.name=grpo")
    data = algorithm.prepare(batch(), FIRST)
    assert [term.name for term in algorithm.bind(FIRST, data)] == ["surrogate"]
    assert algorithm.requires == {"old_logprob"}
    assert algorithm.drop_uniform_groups
    assert data.advantage is not None
    assert data.advantage[0].tolist() == pytest.approx([0, math.sqrt(0.5), math.sqrt(0.5), 0, math.sqrt(0.5)], abs=1e-5)
    assert not data.advantage[2:].any()


def test_epo_has_no_smoothing_before_there_is_a_history() -> None:
    algorithm = build()
    assert [term.name for term in algorithm.bind(FIRST, batch())] == ["surrogate", "entropy_bonus"]
    algorithm.observe(batch(), FIRST)
    assert [term.name for term in algorithm.bind(LATER, batch())] == ["surrogate", "entropy_bonus", "smoothing"]
    assert algorithm.requires == {"old_logprob", "old_entropy", "entropy_grad"}
    assert not algorithm.drop_uniform_groups


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"low_ratio": 0.5, "high_ratio": 1.2},
        {"penalty": "indicator", "aggregation": "token-mean"},
        {"reference": "per_turn", "high_ratio": 0.9},
        {"late_turn_gate": 1, "high_ratio": 0.5},
        {"schedule": "constant", "iterations": 7},
        {"include_current": True, "high_ratio": 1.0},
    ],
)
def test_epo_is_the_reference_function(settings: dict[str, object]) -> None:
    """The terms as the learner sums them equal `epo_terms`, which is tested against the published numbers."""
    settings = {"entropy_coeff": 0.1, **settings}
    options = EntropyOptions(**settings)  # type: ignore[arg-type]
    overrides = [f"algorithm.settings.epo.{key}={str(value).lower()}" for key, value in settings.items()]
    algorithm, history = build(*overrides), EntropyHistory()
    for past in (batch(0.8), batch(1.4)):
        algorithm.observe(past, FIRST)
        assert past.old_entropy is not None
        history.append(EntropyRecord.measure(past.old_entropy, past.mask, past.step_id, past.traj))
    data = algorithm.prepare(batch(), FIRST)
    at = tokens(data)
    terms = algorithm.bind(LATER, data)
    ours = loss_of(terms[1:], data, at)
    ours.backward()

    assert data.old_entropy is not None
    entropy = data.old_entropy.clone().requires_grad_()
    current = EntropyRecord.measure(data.old_entropy, data.mask, data.step_id, data.traj)
    expected = epo_terms(
        entropy,
        data.mask,
        data.step_id,
        terms[1].weights(data) / terms[1].coefficient,
        reference=history.reference(options.reference, current=current if options.include_current else None),
        beta=phase_weight(3, options.iterations or 120, options.decay, options.schedule),
        options=options,
    )
    expected.loss.backward()
    assert float(ours.detach()) == pytest.approx(float(expected.loss.detach()), abs=1e-9)
    assert at.entropy.grad is not None
    assert entropy.grad is not None
    assert torch.allclose(at.entropy.grad, entropy.grad[data.mask], atol=1e-8)
    fractions = terms[2].value(at).diagnostics
    assert int(fractions["frac_below"].sum()) == expected.below
    assert int(fractions["frac_above"].sum()) == expected.above


def test_epo_without_coefficient_is_grpo() -> None:
    zero, grpo = build("algorithm.settings.epo.entropy_coeff=0"), build("algorithm.name=grpo")
    assert zero.parts.terms == grpo.parts.terms
    assert not zero.parts.trackers


def test_kl_and_plain_bonus_are_terms() -> None:
    algorithm = build("algorithm.name=grpo", "algorithm.kl_coeff=0.5", "algorithm.entropy_coeff=0.01")
    data = algorithm.prepare(batch(), FIRST)
    bound = {term.name: term for term in algorithm.bind(FIRST, data)}
    assert list(bound) == ["surrogate", "kl", "entropy_bonus"]
    assert bound["kl"].coefficient == 0.5
    assert bound["entropy_bonus"].coefficient == -0.01
    expected = math.exp(-0.3) + 0.3 - 1
    assert bound["kl"].value(tokens(data)).value.tolist() == pytest.approx([expected] * 11, rel=1e-4)
    assert "ref_logprob" in algorithm.requires
    assert not algorithm.drop_uniform_groups


def test_gates_weigh_and_unclip_the_policy_loss() -> None:
    algorithm = build("algorithm.name=grpo")
    data = algorithm.prepare(batch(), FIRST)
    at = tokens(data.with_(old_logprob=data.old_logprob - 1.0))
    term = algorithm.bind(FIRST, data)[0]
    plain = term.value(at).value
    weight = torch.arange(11.0) / 2
    assert torch.allclose(term.value(replace(at, weight=weight)).value, plain * weight)
    free = term.value(replace(at, unclipped=torch.arange(11) < 5))
    ratio = (at.logprob - at.old_logprob).exp()
    assert torch.allclose(free.value[:5], (-at.advantage * ratio)[:5])
    assert torch.equal(free.value[5:], plain[5:])
    assert not free.diagnostics["clip_fraction"][:5].any()
    garbage = replace(at, logprob=torch.full((11,), -math.inf), weight=torch.zeros(11))
    assert torch.equal(term.value(garbage).value, torch.zeros(11))


def test_trackers_come_back() -> None:
    first, second = build(), build()
    first.observe(batch(0.7), FIRST)
    second.load_state_dict(first.state_dict())
    logs = [algorithm.bind(LATER, batch())[2].log for algorithm in (first, second)]
    assert logs[0] == logs[1]
    with pytest.raises(CheckpointError, match="made with algorithm 'epo', not 'grpo'"):
        build("algorithm.name=grpo").load_state_dict(first.state_dict())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.drop_uniform_groups=true"], "epo has terms with a gradient in every group"),
        (["rollout.group_size=1"], "use at least 2"),
        (["algorithm.plugins=[epo, mismatch]", "learner.old_logprobs=rollout"], "needs learner.old_logprobs=learner"),
        (
            ["algorithm.settings.epo.entropy_coef=1"],
            r"'algorithm.*entropy_coef'; did you mean 'entropy_coeff'",
        ),
        (["algorithm.settings.eop.entropy_coeff=0.5"], r"unknown key 'algorithm.settings.eop'; did you mean .*'epo'"),
        (["algorithm.settings.zzzzzz={}"], "unknown key 'algorithm.settings.zzzzzz'; known: epo"),
        (["algorithm.entropy_coeff=-1"], "entropy_coeff: expected `float` >= 0.0"),
        (["algorithm.settings.epo.entropy_coeff=-1"], "settings.epo.entropy_coeff: expected `float` >= 0.0"),
        (["algorithm.settings.epo.entropy_coeff=.nan"], "settings.epo.entropy_coeff: expected `float` >= 0.0"),
        (["algorithm.settings.epo.slope=.inf"], "settings.epo.slope: expected a finite `float`"),
        (["algorithm.settings.epo.iterations=-4"], "settings.epo.iterations: expected `int` >= 1"),
        (["algorithm.settings.epo.low_ratio=3"], r"algorithm.settings.epo: low_ratio 3.0 is above high_ratio 2.0"),
        (["algorithm.settings.epo.penalty=soft"], r"algorithm.settings.epo.penalty: invalid enum value 'soft'"),
    ],
)
def test_mixes_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*overrides)


def test_unknown_algorithms_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown algorithm 'grop'; did you mean 'grpo'"):
        build("algorithm.name=grop")


def test_a_constant_divides_epo_s_terms_whatever_the_padding() -> None:
    mode = "algorithm.settings.epo.aggregation=dr-grpo-mean"
    algorithm = build(mode, "algorithm.aggregation_constant=8", "algorithm.settings.epo.high_ratio=0.5")
    algorithm.observe(batch(), FIRST)
    data = algorithm.prepare(batch(), FIRST)
    wide = data.with_(mask=F.pad(data.mask, (0, 9)), step_id=F.pad(data.step_id, (0, 9), value=-1))
    terms = algorithm.bind(LATER, data)[1:]
    assert [term.name for term in terms] == ["entropy_bonus", "smoothing"]
    for term in terms:
        expected = torch.where(data.mask, term.coefficient / (8 * 4), 0.0)
        torch.testing.assert_close(term.weights(data), expected, check_dtype=False)
        assert torch.equal(term.weights(wide)[:, :5], term.weights(data))


def test_infinite_bounds_that_mean_something() -> None:
    overrides = ["algorithm.settings.epo.high_ratio=.inf", "algorithm.clip_high=.inf", "algorithm.dual_clip=.inf"]
    assert build(*overrides).parts.terms[0].value(tokens(build().prepare(batch(), FIRST))).value.isfinite().all()  # type: ignore[attr-defined]


def test_settings_of_other_algorithms_stay_unused() -> None:
    algorithm = build("algorithm.name=grpo", "algorithm.settings.epo.entropy_coeff=5")
    assert algorithm.parts.terms == build("algorithm.name=grpo").parts.terms


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_resolved_configuration_has_every_setting(name: str) -> None:
    config = resolve_algorithm(recipe(f"algorithm.name={name}").algorithm)
    assert set(config.settings) == set(config.plugins)
    assert resolve_algorithm(config) == config
    assert all(config.settings[plugin] for plugin in config.plugins if plugin != "uniform_groups")
