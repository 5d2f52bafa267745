"""PPO as an algorithm: credit, whitening, groups of one, learning and resuming."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import levers_recipe, register_levers, save_tiny_model
from support.shaping import random_batch
from support.updates import MOMENT, assert_same, build, episodes, learner, played, update

from palaestra.config import load_recipe
from palaestra.errors import ConfigError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.checkpoint import load_latest
from palaestra.training.gae import GaeAdvantage
from palaestra.training.metrics import read_metrics
from palaestra.training.plugins.ppo import Whitening
from palaestra.training.rows import build_rows
from palaestra.training.run import train

TIMES = ("elapsed", "rollout_seconds", "update_seconds", "rss_bytes")


class Killed(BaseException):
    """Stands for a death of the process."""


def test_defaults_follow_the_unit() -> None:
    assert build("algorithm.name=ppo").advantage == GaeAdvantage("turn", 0.99, 0.9)
    tokens = build("algorithm.name=ppo", "algorithm.settings.ppo.unit=token")
    assert tokens.advantage == GaeAdvantage("token", 1.0, 0.95)
    own = build("algorithm.name=ppo", "algorithm.settings.ppo={gamma: 0.5, lam: 0, truncated: bootstrap}")
    assert own.advantage == GaeAdvantage("turn", 0.5, 0.0, bootstrap=True)


@pytest.mark.parametrize("unit", ["turn", "token"])
def test_without_what_the_critic_knows_it_is_reinforce(unit: str) -> None:
    """Zero values, lambda and gamma 1: every token has the return of its episode, whose reward comes at the end."""
    options = f"algorithm.settings.ppo={{unit: {unit}, gamma: 1, lam: 1, whiten: false, truncated: bootstrap}}"
    ours = update(learner("algorithm.name=ppo", options), played())
    base = ["algorithm.clip_low=0.2", "algorithm.clip_high=0.2", "algorithm.dual_clip=3"]
    theirs = update(learner("algorithm.name=reinforce", "algorithm.aggregation=token-mean", *base), played())
    assert_same(ours[1], theirs[1], atol=0.0)


def test_whitening() -> None:
    batch = random_batch(0).with_(kept=torch.arange(9) != 4)
    shaped = Whitening()(batch, MOMENT).advantage
    inside = shaped[batch.trained]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-9)
    assert float(inside.std()) == pytest.approx(1, abs=1e-9)
    assert not shaped[~batch.trained].any()
    equal = batch.with_(advantage=torch.where(batch.mask, 0.1, 0.0))
    assert not Whitening()(equal, MOMENT).advantage.any()


def test_targets_may_have_another_lambda() -> None:
    batch = played()
    subject = learner("algorithm.name=ppo", "algorithm.settings.ppo={lam: 0.5, value_lam: 1, gamma: 1}")
    returns = subject.update(batch, MOMENT).batch.returns
    assert returns is not None
    expected = torch.where(batch.mask, batch.reward[:, None].float(), 0.0)
    torch.testing.assert_close(returns, expected)


def test_groups_of_one_learn() -> None:
    alone = episodes()
    for number, trajectory in enumerate(alone):
        trajectory.group = str(number)
    result = learner("algorithm.name=ppo", "rollout.group_size=1").update(build_rows(alone).batch, MOMENT)
    assert result.metrics["grad_norm"]


def test_two_estimators_are_refused() -> None:
    with pytest.raises(ConfigError, match="ppo and gigpo each bring their own advantage"):
        build("algorithm.name=grpo", "algorithm.plugins=[ppo, gigpo]")


def test_it_goes_with_others() -> None:
    mixed = ["algorithm.name=ppo", "algorithm.plugins=[ppo, epo, empg, mismatch]", "learner.mini_batches=2"]
    metrics = learner(*mixed).update(played(), MOMENT).metrics
    assert {"value_loss", "entropy_bonus", "explained_variance"} <= metrics.keys()


@pytest.mark.parametrize("options", ["{unit: turn, lr_ratio: 1}", "{unit: token, lr_ratio: 1}", "{trunk: policy}"])
def test_training_learns(tmp_path: Path, options: str) -> None:
    """From about chance to nearly always, every task played once an iteration."""
    register_levers()
    save_tiny_model(tmp_path / "base")
    overrides = ["budget.iterations=40", "evaluation.every=0", "evaluation.test_episodes=0"]
    sizes = ["rollout.groups=16", "rollout.group_size=1", "optimiser.lr=0.02"]
    train(levers_recipe(tmp_path, "algorithm.name=ppo", f"algorithm.settings.ppo={options}", *overrides, *sizes))
    rows = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    success = [row["success"] for row in rows]
    assert sum(success[:3]) / 3 < 0.5
    assert sum(success[-5:]) / 5 > 0.9
    assert load_recipe(tmp_path / "run" / "recipe.yaml").algorithm.settings["ppo"]["gamma"] is None


@pytest.mark.parametrize("trunk", ["own", "frozen", "policy"])
def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, trunk: str) -> None:
    register_levers()
    short = ["budget.iterations=6", "checkpoint.every=2", "evaluation.test_episodes=0", "evaluation.every=0"]
    ppo = ["algorithm.name=ppo", f"algorithm.settings.ppo.trunk={trunk}", "learner.mini_batches=2"]
    found = []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        folder.mkdir()
        save_tiny_model(folder / "base")
        recipe, left = levers_recipe(folder, *short, *ppo), 4

        def die(row: Mapping[str, Any]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        if name == "broken":
            with pytest.raises(Killed):
                train(recipe, progress=die)
        train(recipe, resume=name == "broken")
        found.append(outcome(folder / "run"))
    assert found[0] == found[1]


def outcome(directory: Path) -> tuple[list[dict[str, bytes]], list[dict[str, Any]]]:
    checkpoint = load_latest(directory / "checkpoints")
    assert checkpoint is not None
    tensors = [checkpoint.model, checkpoint.optimiser, checkpoint.more["critic"]]
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(directory / "metrics.jsonl")]
    return [{name: value.numpy().tobytes() for name, value in each.items()} for each in tensors], rows


def test_a_recipe_with_ppo_reads_back() -> None:
    shipped = Path(__file__).parents[3] / "recipes" / "demo.yaml"
    assert build_algorithm(load_recipe(shipped, ["algorithm.name=ppo"])).parts.critic is not None
