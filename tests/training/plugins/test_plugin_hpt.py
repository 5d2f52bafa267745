"""HPT: when a group imitates, what is imitated, and where demonstrations come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.levers import ENV, LEVERS, Levers, levers_recipe, register_levers, save_tiny_model, tiny_model
from support.resuming import assert_resumes
from support.updates import MOMENT, assert_same, episodes, learner, played, recipe, update

from palaestra.envs.registry import register
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.cloning import CloningBatch, cloning_loss
from palaestra.training.demonstrations import FILE, key_of
from palaestra.training.forward import PolicyModel
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics
from palaestra.training.plugins.hpt import Switch
from palaestra.training.rows import build_rows
from palaestra.training.run import check_recipe, train
from palaestra.trajectories.record import StepRecord, Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

HPT = ["algorithm.name=hpt", "algorithm.entropy_coeff=0"]


def switch_of(subject: Learner) -> Switch:
    (switch,) = subject.algorithm.parts.replays
    assert isinstance(switch, Switch)
    return switch


def subject(*overrides: str, known: bool = True, **config: Any) -> Learner:
    """With a demonstration of every task of `episodes`."""
    found = recipe(*HPT, *overrides, *(f"learner.{key}={value}" for key, value in config.items()))
    ours = Learner(tiny_model(), build_algorithm(found), config=found.learner, optimiser=found.optimiser)
    if known and ours.algorithm.parts.replays:
        for each in demonstrations():
            switch_of(ours).demonstrations.known[key_of(each)] = each
    return ours


def demonstrations() -> list[Trajectory]:
    """One of each of the three tasks, unlike what was played."""
    return [episodes(seed=9)[index] for index in (0, 4, 8)]


def batch_of(*successes: int) -> Batch:
    """Three groups of four with so many successes."""
    return build_rows(episodes(tuple(float(n < count) for count in successes for n in range(4)))).batch


def cloned(*indices: int) -> dict[str, torch.Tensor]:
    """The gradient of behaviour cloning of these demonstrations."""
    rows, model = build_rows([demonstrations()[index] for index in indices]).batch, tiny_model()
    cloning_loss(PolicyModel(model), CloningBatch(rows.ids, rows.mask.float())).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@given(successes=st.tuples(*[st.integers(0, 4)] * 3), gamma=st.integers(0, 4))
def test_a_group_imitates_up_to_gamma_successes(successes: tuple[int, ...], gamma: int) -> None:
    ours, batch = subject(f"algorithm.settings.hpt.gamma={gamma}"), batch_of(*successes)
    chosen = switch_of(ours).chosen(batch)
    assert [*chosen] == [group for group in range(3) if successes[group] <= gamma]
    kept = switch_of(ours).keep(batch, MOMENT)
    assert kept.tolist() == [int(group) not in chosen for group in batch.group]


def test_gamma_n_is_behaviour_cloning_only() -> None:
    result, found = update(subject("algorithm.settings.hpt.gamma=4"), played())
    assert_same(found, cloned(0, 1, 2))
    assert result.metrics["imitated_groups"] == 1
    assert result.metrics["loss"] == result.metrics["demonstration_sft"]


def test_gamma_minus_1_is_rewards_only() -> None:
    base = ["normalise=mean", "clip_low=1", "clip_high=.inf", "dual_clip=.inf"]
    ours = update(subject("algorithm.settings.hpt.gamma=-1", mini_batches=2), batch_of(0, 2, 4))
    theirs = learner("algorithm.name=grpo", *(f"algorithm.{each}" for each in base), mini_batches=2)
    assert_same(ours[1], update(theirs, batch_of(0, 2, 4))[1], atol=0.0)


def test_a_mix_is_the_sum_of_both_parts() -> None:
    batch = batch_of(0, 2, 0)
    both = update(subject("algorithm.settings.hpt.weight=0.3"), batch)
    rewards = update(subject("algorithm.settings.hpt.gamma=-1"), batch.keeping(batch.group == 1))
    imitation = cloned(0, 2)
    assert_same(both[1], {name: gradient + 0.3 * imitation[name] for name, gradient in rewards[1].items()})
    assert both[0].metrics["imitated_groups"] == pytest.approx(2 / 3)


def test_no_weight_drops_the_groups_only() -> None:
    batch = batch_of(0, 2, 0)
    dropped = update(subject("algorithm.settings.hpt.weight=0"), batch)
    rewards = update(subject("algorithm.settings.hpt.gamma=-1"), batch.keeping(batch.group == 1))
    assert_same(dropped[1], rewards[1])


def test_a_group_without_a_known_demonstration_stays() -> None:
    found = update(subject(known=False, mini_batches=2), batch_of(0, 2, 0))
    assert_same(found[1], update(subject("algorithm.settings.hpt.gamma=-1", mini_batches=2), batch_of(0, 2, 0))[1], 0.0)
    assert found[0].metrics["imitated_groups"] == 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_each_demonstration_comes_once_in_each_epoch(epochs: int) -> None:
    ours = subject("algorithm.settings.hpt.gamma=4", epochs=epochs, mini_batches=2)
    extras = switch_of(ours)(played(), MOMENT, 2 * epochs)
    assert [len(extra.batch.ids) for extra in extras] == [2, 1] * epochs


def test_micro_batches_change_nothing() -> None:
    parts, whole = (update(subject(micro_batch_tokens=n), batch_of(0, 2, 0))[1] for n in (30, 10**6))
    assert_same(parts, whole)


# Runs


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder / "run" / "metrics.jsonl") if row["kind"] == "train"]


@pytest.mark.parametrize("action", ["choice", "text"])
def test_a_run_imitates_the_oracle_in_the_policy_s_tokens(tmp_path: Path, action: str) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    context = ["agent.context=window", "agent.window_turns=1", f"agent.action={action}", "agent.max_tokens=12"]
    less = ["evaluation.every=0", "evaluation.test_episodes=0", "budget.iterations=12"]
    train(levers_recipe(tmp_path, *HPT, "algorithm.settings.hpt.gamma=4", *context, *less))
    rows = rows_of(tmp_path)
    assert rows[-1]["demonstration_sft"] < rows[0]["demonstration_sft"] / 2
    played = list(read_trajectories(tmp_path / "run" / FILE))
    assert {each.task for each in played} == {f"train-{n}" for n in range(12)}
    assert len(played) == 12, "each is played once"
    assert all([step.action for step in each.steps] == [LEVERS[0]] * 2 and each.success for each in played)
    nodes = [node for each in played for node in each.nodes if node.sampled]
    assert all((node.allowed is not None) == (action == "choice") for node in nodes)
    assert len(build_rows(played).batch.ids) == 24, "a window of one turn makes a row of each"


def test_recorded_episodes_of_any_agent_will_do(tmp_path: Path) -> None:
    """An environment without an oracle, and a file with a long and a short solution, one of which fails."""

    class Mute(Levers):
        oracle = None  # type: ignore[assignment]

    register_levers()
    register(ENV, Mute, override=True)
    save_tiny_model(tmp_path / "base")
    less = ["evaluation.every=0", "evaluation.test_episodes=0", "budget.iterations=2", "tasks.train=levers:train[0:3]"]
    with pytest.raises(
        TrainingError, match=r"'train-\d' has no demonstration: the oracle of test/Levers-v0 .* no oracle"
    ):
        train(levers_recipe(tmp_path, *HPT, *less, "algorithm.settings.hpt.gamma=4"))
    file = tmp_path / "expert.ptj"
    with pytest.raises(ConfigError, match=r"settings.hpt.demonstrations: there is no file"):
        check_recipe(levers_recipe(tmp_path, *HPT, f"algorithm.settings.hpt.demonstrations={file}"))
    solved = [solution(n, success=True) for n in range(3)]
    with TrajectoryWriter(file) as writer:
        for each in [*(solution(n, success=False) for n in range(3)), *solved]:
            writer.append(each)
    settings = f"algorithm.settings.hpt={{gamma: 4, demonstrations: {file}}}"
    train(levers_recipe(tmp_path, *HPT, *less, settings, f"out={tmp_path / 'again'}"))
    assert len(list(read_trajectories(tmp_path / "again" / FILE))) == 3


def solution(number: int, *, success: bool) -> Trajectory:
    actions = [LEVERS[0]] * 2 if success else [LEVERS[1]]
    steps = [StepRecord(observation="", action=action, reward=0.0) for action in actions]
    where = {"env": ENV, "task": f"train-{number}", "split": "train", "task_seed": number}
    return Trajectory(id=f"{number}{success}", success=success, steps=steps, **where)  # type: ignore[arg-type]


def test_an_expert_that_fails_is_an_error(tmp_path: Path) -> None:
    class Misled(Levers):
        async def oracle(self) -> str:
            return LEVERS[1]

    register_levers()
    register(ENV, Misled, override=True)
    save_tiny_model(tmp_path / "base")
    with pytest.raises(TrainingError, match=r"does not give one: it ended unsolved \(ok, 2 actions\)"):
        train(levers_recipe(tmp_path, *HPT, "algorithm.settings.hpt.gamma=4", "evaluation.test_episodes=0"))


def test_a_file_without_a_solved_episode_is_refused(tmp_path: Path) -> None:
    register_levers()
    save_tiny_model(tmp_path / "base")
    with TrajectoryWriter(tmp_path / "none.ptj") as writer:
        writer.append(solution(0, success=False))
    with pytest.raises(ConfigError, match="holds no solved episode"):
        train(levers_recipe(tmp_path, *HPT, f"algorithm.settings.hpt.demonstrations={tmp_path / 'none.ptj'}"))


def test_a_run_resumes(tmp_path: Path) -> None:
    mini = ["learner.mini_batches=2", "learner.epochs=2", "rollout.group_size=2"]
    rows = assert_resumes(tmp_path, *HPT, *mini)
    assert sum(row["imitated_groups"] for row in rows) / len(rows) > 0
