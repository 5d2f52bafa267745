import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.levers import ENV, Levers, levers_recipe, register_levers, save_tiny_model, tiny_model

from palaestra.agents.models import load_model
from palaestra.config import RolloutConfig, load_recipe
from palaestra.envs.core import Reset, Step
from palaestra.envs.registry import register
from palaestra.envs.tasks import load_suite
from palaestra.errors import CheckpointError, ConfigError, PalaestraError, TrainingError, UnknownNameError
from palaestra.training.checkpoint import fingerprint, list_checkpoints, load_latest
from palaestra.training.metrics import read_metrics
from palaestra.training.run import RunResult, train
from palaestra.training.sampling import TaskSampler
from palaestra.training.seams import Moment
from palaestra.trajectories.store import read_trajectories

TRAIN_KEYS = {
    *("kind", "iteration", "elapsed", "success", "reward", "length", "invalid_rate", "entropy", "entropy_by_turn"),
    *("entropy_success", "entropy_failure", "loss", "surrogate", "entropy_bonus", "smoothing", "h_ref", "beta"),
    *("corridor_low", "corridor_high", "frac_below", "frac_above", "grad_norm", "lr", "clip_fraction"),
    *("groups_with_signal", "tokens_generated", "tokens_trained", "env_steps", "rollout_seconds", "update_seconds"),
    "rss_bytes",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    register_levers()
    save_tiny_model(tmp_path / "base")
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("finished")
    register_levers()
    save_tiny_model(folder / "base")
    return train(levers_recipe(folder))


def rows(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(directory / "metrics.jsonl") if row["kind"] == kind]


@pytest.mark.parametrize("algorithm", ["epo", "grpo", "gigpo"])
def test_training_learns(folder: Path, algorithm: str) -> None:
    """From about chance (one command of four, twice) to nearly always."""
    overrides = [
        "budget.iterations=40",
        "evaluation.every=0",
        "evaluation.test_episodes=0",
        "rollout.groups=4",
    ]
    train(levers_recipe(folder, f"algorithm.name={algorithm}", "optimiser.lr=0.02", *overrides))
    success = [row["success"] for row in rows(folder / "run", "train")]
    assert sum(success[:3]) / 3 < 0.5
    assert sum(success[-5:]) / 5 > 0.9


def test_the_run_directory_is_complete(finished: RunResult) -> None:
    directory = finished.directory
    assert finished.stopped == "iterations"
    assert load_recipe(directory / "recipe.yaml").algorithm.settings["epo"]["entropy_coeff"] == 0.001
    assert [path.name for path in list_checkpoints(directory / "checkpoints")] == ["000004", "000006"]
    latest = load_latest(directory / "checkpoints")
    assert latest is not None
    model = load_model(directory).model
    assert fingerprint(model) != fingerprint(tiny_model())
    assert all((p == latest.model[name]).all() for name, p in model.named_parameters())
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["success_oracle"]["value"] == 1.0
    assert {"value", "n", "low", "high"} == set(summary["success_warm"]) == set(summary["success_rl"])
    assert summary["env_steps"] == 6 * 12 * 2
    assert summary["algorithm"] == "epo"
    assert summary["peak_rss_bytes"] > 10**7
    assert set(finished.evaluations) == {"warm", "rl", "random", "oracle"}
    assert (directory / "eval" / "rl.json").exists()
    assert len(list(read_trajectories(directory / "trajectories" / "eval-rl.ptj"))) == 5


def test_metrics_tell_the_iteration(finished: RunResult) -> None:
    train_rows, eval_rows = rows(finished.directory, "train"), rows(finished.directory, "eval")
    assert [row["iteration"] for row in train_rows] == list(range(6))
    assert [row["iteration"] for row in eval_rows] == [0, 3, 6]
    assert {row["tag"] for row in eval_rows} == {"validation"}
    assert all(set(row) >= TRAIN_KEYS for row in train_rows)
    first, later = train_rows[0], train_rows[1]
    assert first["h_ref"] is None
    assert later["h_ref"] == pytest.approx(first["entropy"])
    assert later["corridor_high"] == pytest.approx(2 * first["entropy"])
    assert len(first["entropy_by_turn"]) == 2
    assert first["length"] == 2
    assert abs(first["rollout_kl"]) < 1e-5
    assert later["elapsed"] > first["elapsed"]


def test_trajectories_carry_their_iteration_and_credit(finished: RunResult) -> None:
    stored = list(read_trajectories(finished.directory / "trajectories" / "train.ptj"))
    assert len(stored) == 6 * 12
    assert [t.id for t in stored[:5]] == ["0/0/0", "0/0/1", "0/0/2", "0/0/3", "0/1/0"]
    groups = {(t.group, t.task) for t in stored}
    assert len(groups) == 6 * 3
    for group in {t.group for t in stored}:
        assert sum(t.meta["advantage"] for t in stored if t.group == group) == pytest.approx(0, abs=1e-4)
    assert stored[-1].meta["iteration"] == 5
    assert {node.weight_version for t in stored[-12:] for node in t.nodes if node.sampled} == {5}


def played(sampler: TaskSampler, iteration: int) -> list[str]:
    return [episode.task.name for episode in sampler.round(Moment(iteration, 8)).episodes]


def test_tasks_come_in_a_seeded_order_without_repeats_within_an_epoch() -> None:
    register_levers()
    suite, config = load_suite("levers:train"), RolloutConfig(groups=3, group_size=2)
    sampler = TaskSampler(suite, config, seed=1)
    names = [played(sampler, iteration) for iteration in range(8)]
    first = [name for iteration in names[:4] for name in iteration[::2]]
    second = [name for iteration in names[4:] for name in iteration[::2]]
    assert sorted(first) == sorted(second) == sorted(task.name for task in suite)
    assert first != second
    assert all(iteration[::2] == iteration[1::2] for iteration in names)
    assert played(TaskSampler(suite, config, seed=1), 5) == names[5]
    assert played(TaskSampler(suite, config, seed=2), 0) != names[0]
    with pytest.raises(ConfigError, match="has no tasks"):
        TaskSampler(suite[:0], config, seed=0)


def test_the_budget_of_seconds_ends_training(folder: Path) -> None:
    result = train(levers_recipe(folder, "budget.max_seconds=0.001", "evaluation.test_episodes=0"))
    assert result.stopped == "seconds"
    assert result.counters.iteration == 1
    assert [row["iteration"] for row in rows(result.directory, "eval")] == [0, 1]


def test_ctrl_c_ends_with_a_checkpoint_of_the_last_iteration(folder: Path) -> None:
    def interrupt(row: Mapping[str, Any]) -> None:
        if row["kind"] == "train" and row["iteration"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    result = train(levers_recipe(folder), progress=interrupt)
    assert result.stopped == "interrupted"
    assert result.counters.iteration == 3
    assert list_checkpoints(result.directory / "checkpoints")[-1].name == "000003"
    assert not (result.directory / "model").exists()
    assert "warm" in result.evaluations
    resumed = train(levers_recipe(folder), resume=True)
    assert resumed.stopped == "iterations"
    assert [row["iteration"] for row in rows(result.directory, "train")] == list(range(6))


def test_a_failing_environment_never_ends_training(folder: Path) -> None:
    class Fragile(Levers):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Fragile.made += 1
            self.broken = Fragile.made % 3 == 0

        async def step(self, action: str) -> Step[str]:
            if self.broken:
                raise OSError("the lever broke")
            return await super().step(action)

    register(ENV, Fragile, override=True)
    overrides = ["rollout.retries=0", "evaluation.every=0", "evaluation.test_episodes=0"]
    result = train(levers_recipe(folder, *overrides))
    assert result.counters.iteration == 6
    row = rows(result.directory, "train")[0]
    assert row["statuses"] == {"error": 4, "ok": 8}
    assert row["left_out"] == {"error": 4}


def test_if_no_episode_can_be_learned_from_the_reason_is_named(folder: Path) -> None:
    class Broken(Levers):
        async def reset(self, **_: Any) -> Reset[str]:
            raise OSError("no levers here")

    register(ENV, Broken, override=True)
    with pytest.raises(TrainingError, match=r"iteration 0: no episode can be learned from .*no levers here"):
        train(levers_recipe(folder, "evaluation.every=0", "evaluation.test_episodes=0"))


def test_several_rows_an_episode_train_too(folder: Path) -> None:
    result = train(levers_recipe(folder, "agent.context=window", "agent.window_turns=1", "agent.action=text"))
    assert result.counters.iteration == 6


def test_more_updates_an_iteration_and_the_engine_s_logprobs(folder: Path) -> None:
    overrides = ["learner.mini_batches=2", "learner.epochs=2", "learner.old_logprobs=rollout", "algorithm.kl_coeff=0.1"]
    result = train(levers_recipe(folder, *overrides, "evaluation.every=0", "evaluation.test_episodes=0"))
    assert rows(result.directory, "train")[-1]["kl"] > 0


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("algorithm.name=ego", UnknownNameError, "unknown algorithm 'ego'"),
        ("tasks.train=lever:train", UnknownNameError, "unknown suite 'lever'; did you mean 'levers'"),
        ("model.reference=nowhere", UnknownNameError, "nowhere"),
        ("tasks.validation=levers", ConfigError, "is not a suite reference"),
    ],
)
def test_bad_recipes_leave_no_run_directory(folder: Path, override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(levers_recipe(folder, override))
    assert not (folder / "run").exists()


def test_an_unwritable_run_directory_is_one_line(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(PalaestraError, match=r"cannot write run directory .*Not a directory; choose another with out="):
        train(levers_recipe(folder, f"out={folder / 'file' / 'run'}"))


def test_an_existing_run_is_not_overwritten(finished: RunResult) -> None:
    recipe = load_recipe(finished.directory / "recipe.yaml")
    before = (finished.directory / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; resume it"):
        train(recipe)
    other = msgspec.structs.replace(recipe, seed=recipe.seed + 1)
    with pytest.raises(ConfigError, match=r"cannot resume .* with other settings \(seed\)"):
        train(other, resume=True)
    assert (finished.directory / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(folder: Path) -> None:
    train(levers_recipe(folder, "budget.iterations=1", "evaluation.test_episodes=0"))
    tiny_model(width=32).save_pretrained(folder / "base")
    with pytest.raises(CheckpointError, match="of another model"):
        train(levers_recipe(folder, "budget.iterations=2", "evaluation.test_episodes=0"), resume=True)
