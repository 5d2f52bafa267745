"""What every registered plug-in keeps to (`catalogue.md` C.4), so that a new one cannot skip it.

A plug-in that has no effect on a small update by its defaults, or cannot be built on a plain recipe, has a line in
`support.updates.TRIALS`.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from support.updates import MIXES, MOMENT, assert_same, build, learner, mix, played, trial_base, update
from torch import Tensor

from palaestra.config import to_yaml
from palaestra.training.algorithms import ALGORITHMS
from palaestra.training.batch import Batch
from palaestra.training.checkpoint import fingerprint
from palaestra.training.forward import Scores
from palaestra.training.learner import Learner
from palaestra.training.plugins import PLUGINS
from palaestra.training.seams import Moment
from palaestra.training.step import gather


def _id(overrides: list[str]) -> str:
    return "+".join(each.split(".", 1)[-1] for each in overrides[:2])


EVERY = pytest.mark.parametrize("overrides", MIXES, ids=_id)
NEVER_NEUTRAL = {
    "opd": "its advantage takes the place of the group's",
    "ppo": "a critic takes the place of the group",
    "uniform_groups": "a filter either filters or is not named",
}
"""Plug-ins without settings that switch them off."""
NO_EFFECT = {
    "branching": "plans rollouts",
    "grpo": "the base itself",
    "knapsack": "shares out rollouts",
    "ref_reset": "moves the reference after an update",
}
"""Algorithms and plug-ins without a part in an update."""
BY_ROW: dict[str, str] = {"gspo": "a ratio a row"}
"""Algorithms and plug-ins that see rows by definition, so that layouts may differ."""
CONSTANTS = ("old_logprob", "rollout_logprob", "advantage", "ref_logprob", "old_entropy")
"""Columns of `Tokens` that never carry gradient."""


def names(overrides: list[str]) -> set[str]:
    return {word for override in overrides for word in override.replace("=", " ").strip("]").replace("[", " ").split()}


def neutral(name: str) -> list[str]:
    settings = PLUGINS[name].neutral
    assert settings is not None
    return [f"algorithm.settings.{name}.{key}={_yaml(value)}" for key, value in settings.items()]


def _yaml(value: Any) -> str:
    if isinstance(value, float) and math.isinf(value):
        return ".inf"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def as_step_rows(batch: Batch) -> Batch:
    """A row for each turn, with the whole episode as its context: the same tokens in another layout."""
    pairs = [(row, turn) for row in range(len(batch.ids)) for turn in batch.step_id[row].unique().tolist() if turn >= 0]
    rows, turns = (torch.tensor(column) for column in zip(*pairs, strict=True))
    per_row = {f.name: getattr(batch, f.name) for f in fields(batch)}
    split = {n: v[rows] for n, v in per_row.items() if isinstance(v, Tensor) and len(v) == len(batch.ids)}
    mask = split["mask"] & (split["step_id"] == turns[:, None])
    return batch.with_(**{**split, "mask": mask, "step_id": torch.where(mask, split["step_id"], -1)})


def with_garbage(batch: Batch) -> Batch:
    """Other numbers wherever nothing was sampled, and more padding."""
    wide: dict[str, Tensor] = {}
    fills: dict[str, Any] = {"ids": 7, "mask": False, "step_id": -1, "rollout_logprob": math.nan}
    for name, fill in {**fills, "rollout_entropy": math.nan}.items():
        column = getattr(batch, name)
        if isinstance(fill, float):
            column = torch.where(batch.mask, column, fill)
        wide[name] = torch.nn.functional.pad(column, (0, 3), value=fill)
    return batch.with_(**wide)


@pytest.mark.parametrize("name", [name for name in PLUGINS if name not in NEVER_NEUTRAL])
def test_the_neutral_setting_is_the_base(name: str) -> None:
    for batch in (played(), played(3)):
        ours = learner(*mix(name), *neutral(name), mini_batches=2)
        grpo = learner(*trial_base(name), mini_batches=2)
        assert_same(update(ours, batch)[1], update(grpo, batch)[1], atol=0.0)
        assert fingerprint(ours.policy.model) == fingerprint(grpo.policy.model)


def test_plug_ins_without_a_neutral_setting_are_named() -> None:
    assert {name for name, plugin in PLUGINS.items() if plugin.neutral is None} == set(NEVER_NEUTRAL) & set(PLUGINS)


@pytest.mark.parametrize("name", [*ALGORITHMS, *PLUGINS])
def test_a_trial_is_one(name: str) -> None:
    """Or the other tests would be of GRPO. After a first pass, so that ratios differ from 1."""
    mine = next(overrides for overrides in MIXES if name in names(overrides))
    twice = ["learner.epochs=2", "optimiser.lr=3e-3"]
    ours, base = (update(learner(*each, *twice), played())[1] for each in (mine, trial_base(name)))
    largest = max(float(gradient.abs().max()) for gradient in base.values())
    difference = max(float((ours[parameter] - base[parameter]).abs().max()) for parameter in base)
    assert (difference == 0) if name in NO_EFFECT else (difference > 0.01 * largest)


@EVERY
def test_what_was_not_sampled_changes_nothing(overrides: list[str]) -> None:
    batch = played()
    ours, theirs = (update(learner(*overrides, mini_batches=2), each)[1] for each in (batch, with_garbage(batch)))
    assert_same(ours, theirs)


@pytest.mark.parametrize("overrides", [o for o in MIXES if not names(o) & set(BY_ROW)], ids=_id)
def test_layouts_agree(overrides: list[str]) -> None:
    batch, mean = played(), "algorithm.aggregation=token-mean"
    ours, theirs = (update(learner(*overrides, mean), each)[1] for each in (batch, as_step_rows(batch)))
    assert_same(ours, theirs, atol=2e-6)


@EVERY
def test_only_log_probs_entropies_and_statistics_have_a_gradient(overrides: list[str]) -> None:
    subject = learner(*overrides, mini_batches=2)
    algorithm, batch = subject.algorithm, subject.prepared(played(), MOMENT)
    assert batch.advantage is not None
    assert batch.old_logprob is not None
    assert batch.old_entropy is not None
    assert not batch.advantage.requires_grad
    where = batch.trained.nonzero(as_tuple=True)
    extra = {name: column[where] for name, column in batch.extra.items()}
    at = gather(batch, where, Scores(batch.old_logprob[where], batch.old_entropy[where], extra))
    constants = {n: getattr(at, n) for n in CONSTANTS}
    leaves = {n: v.clone().requires_grad_() for n, v in constants.items() if v is not None}
    provided = {n: v.clone().requires_grad_() for n, v in at.old_extra.items()}
    at = replace(at, **leaves, old_extra=provided)
    for gate in algorithm.parts.gates:
        said = gate(at, batch, MOMENT)
        columns = [said.weight, said.unclipped, *said.marks.values()]
        assert not any(column.requires_grad for column in columns if column is not None)
        at = replace(at, marks={**at.marks, **said.marks}, weight=said.weight, unclipped=said.unclipped)
    for term in algorithm.bind(MOMENT, batch):
        value = term.value(replace(at, logprob=at.logprob.clone().requires_grad_())).value.sum()
        if value.requires_grad:
            found = torch.autograd.grad(value, [*leaves.values(), *provided.values()], allow_unused=True)
            assert not any(gradient is not None and bool(gradient.any()) for gradient in found), term.name


@EVERY
def test_a_run_goes_on_from_saved_state_as_if_nothing_had_been(overrides: list[str]) -> None:
    whole = learner(*overrides, mini_batches=2)
    whole.update(played(0), Moment(0, 10))
    whole.update(played(1), Moment(1, 10))
    resumed = learner(*overrides, mini_batches=2)
    _copy(whole, resumed)
    for subject in (whole, resumed):
        subject.update(played(2), Moment(2, 10))
    assert fingerprint(resumed.policy.model) == fingerprint(whole.policy.model)
    assert resumed.algorithm.state_dict() == whole.algorithm.state_dict()


def _copy(source: Learner, target: Learner) -> None:
    """As a checkpoint does."""
    target.policy.model.load_state_dict(source.policy.model.state_dict())
    target.optimiser.load_state_tensors(source.optimiser.state_tensors())
    target.algorithm.load_state_dict(source.algorithm.state_dict())
    target.load_more_tensors(source.more_tensors())


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plug_in_says_what_it_is(name: str) -> None:
    plugin = PLUGINS[name]
    assert plugin.name == name
    assert plugin.summary
    assert plugin.source
    assert plugin.settings.__doc__
    assert to_yaml(plugin.settings()) is not None
    build(*mix(name))
