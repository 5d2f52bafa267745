"""Runs in TRL's environment: trains by each algorithm in GRPOTrainer, and by our learner on the same episodes.

PYTHON tests/support/trl_session.py FOLDER [RUN ...]    writes FOLDER/result.json
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import TrainerCallback
from transformers.utils import logging

from palaestra.agents.models import load_model
from palaestra.config import Recipe, parse_recipe
from palaestra.envs.tasks import load_suite
from palaestra.errors import PalaestraError
from palaestra.integrations.trl import PalaestraTrainer, environment_factory, grpo_config
from palaestra.training.algorithms import build_algorithm, resolve_algorithm
from palaestra.training.learner import Learner
from palaestra.training.optimiser import learning_rate
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment

RECIPE = """
name: session
tasks: {train: "alfworld/small:train", max_turns: 6}
model: {reference: palaestra-tiny}
agent: {action: text, max_tokens: 8, temperature: 1.25}
rollout: {groups: 2, group_size: 4}
optimiser: {lr: 1.0e-3, grad_clip: 0}
budget: {iterations: 2}
algorithm: {invalid_penalty: 0.1}
"""
SPEAR = [
    "algorithm.settings.self_imitation={warmup: 0, low: 0, rate: 0.2}",
    "algorithm.settings.clip_cov={rate: 0.2, low: 0, high: .inf}",
    "algorithm.settings.widest_groups.part=1.0",
]
RUNS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "epo": ([], {"head": "trl"}),
    "epo in two steps": (["algorithm.name=epo", "learner.mini_batches=2"], {}),
    "empg": ([], {"head": "trl"}),
    "aepo": (["algorithm.settings.aepo.branching=true"], {}),
    "spear": (SPEAR, {}),
    "gspo, two epochs": (["algorithm.name=gspo", "learner.epochs=2"], {"head": "trl"}),
    "empg, TRL's loss": ([], {"loss": "trl", "loss_type": "bnpo", "micro_batch": 8}),
    "kl": (["algorithm.name=grpo", "algorithm.kl_coeff=0.1"], {}),
}
"""Overrides of the recipe, and what the trainer is told."""


def recipe_of(name: str, overrides: list[str], folder: Path) -> Recipe:
    return parse_recipe(RECIPE, [f"algorithm.name={name}", *overrides, f"out={folder / name.replace(' ', '-')}"])


class Recorder(TrainerCallback):
    """What TRL's loop did, step by step."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.rows: list[torch.Tensor] = []
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.trajectories: list[Any] = []

    def snapshot(self) -> None:
        self.weights.append({n: p.detach().clone() for n, p in self.trainer.loaded.model.named_parameters()})

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.snapshot()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        model = trainer.loaded.model
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        self.rows.append(trainer._rows_of(len(self.rows) % trainer._windows))
        if not self.trajectories or self.trajectories[-1] is not trainer.trajectories:
            self.trajectories.append(trainer.trajectories)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.snapshot()


class Recorded(PalaestraTrainer):
    recorder: Recorder

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        self.recorder.losses.append(float(loss.detach()))
        return loss


class Following(Learner):
    """Our learner on TRL's mini-batches; before every step it has TRL's weights."""

    def follow(self, recorder: Recorder) -> None:
        self.recorder, self.seen = recorder, []
        self.optimiser.step = self._no_step  # type: ignore[method-assign]

    def _mini_batches(self, batch: Any, moment: Moment) -> Any:
        steps = self.config.mini_batches * self.config.epochs
        yield from self.recorder.rows[moment.iteration * steps : (moment.iteration + 1) * steps]

    def _no_step(self, lr: float) -> float:
        self.seen.append({n: p.grad.clone() for n, p in self.policy.model.named_parameters() if p.grad is not None})
        self.optimiser.clear()
        put(self.policy.model, self.recorder.weights[len(self.seen)])
        return 1.0


def put(model: Any, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def train(name: str, overrides: list[str], told: dict[str, Any], folder: Path) -> tuple[Any, Recorder, Recipe]:
    told = dict(told)
    recipe = recipe_of(name.split(",")[0].split(" ")[0], overrides, folder)
    config = {key: told.pop(key) for key in ("loss_type", "save_strategy", "save_steps") if key in told}
    recorder = Recorder()
    size = told.pop("micro_batch", 0) or 4 // recipe.learner.mini_batches
    trainer = Recorded(
        recipe, grpo_config(recipe, micro_batch=size, disable_tqdm=True, **config), callbacks=[recorder], **told
    )
    trainer.recorder, recorder.trainer = recorder, trainer
    trainer.train()
    return trainer, recorder, recipe


def compared(name: str, overrides: list[str], told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Largest differences of gradients and losses between TRL's loop and our learner."""
    trainer, recorder, recipe = train(name, overrides, told, folder)
    recipe_ = msgspec.structs.replace(recipe, algorithm=resolve_algorithm(recipe.algorithm))
    model = load_model("palaestra-tiny").model
    algorithm = build_algorithm(recipe_)
    reference = load_model("palaestra-tiny").model if "ref_logprob" in algorithm.requires else None
    learner = Following(model, algorithm, config=recipe_.learner, seed=recipe.seed, reference=reference)
    learner.follow(recorder)
    put(model, recorder.weights[0])
    losses, metrics = [], {}
    for number, trajectories in enumerate(recorder.trajectories):
        rows = build_rows(trajectories, temperature=recipe.agent.temperature, invalid_penalty=algorithm.invalid_penalty)
        update = learner.update(rows.batch, Moment(number, recipe.budget.iterations, recipe.seed))
        losses.append(update.metrics["loss"])
        metrics = update.metrics
    steps = recipe.learner.mini_batches * recipe.learner.epochs
    per_iteration = len(recorder.losses) // len(recorder.trajectories)
    theirs = [
        sum(recorder.losses[at : at + per_iteration]) / steps for at in range(0, len(recorder.losses), per_iteration)
    ]
    pairs = list(zip(recorder.gradients, learner.seen, strict=True))
    return {
        "iterations": len(recorder.trajectories),
        "steps": len(pairs),
        "gradient": max(float((a[n] - b[n]).abs().max()) for a, b in pairs for n in b),
        "gradient_scale": max(float(b[n].abs().max()) for _, b in pairs for n in b),
        "loss": max(abs(a - b) for a, b in zip(theirs, losses, strict=True)),
        "losses": losses,
        "turns": max(len(t.steps) for each in recorder.trajectories for t in each),
        "state": distance(algorithm.state_dict(), trainer.learner.algorithm.state_dict()),
        "terms": sorted(key for key, value in metrics.items() if value is not None),
        "logged": sorted({key for row in trainer.state.log_history for key in row if key.startswith("palaestra/")}),
        "reward": [row["reward"] for row in trainer.state.log_history if "reward" in row],
    }


def distance(a: Any, b: Any) -> float:
    """Largest difference of the numbers in two states of one shape; infinite where other things differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((distance(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return max((distance(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


def resumed(folder: Path) -> dict[str, Any]:
    """Three iterations at once, and two of them and a third after a resume: the same weights and memory?"""
    whole, _, _recipe = train(
        "epo",
        ["out=" + str(folder / "whole"), "budget.iterations=3"],
        {"save_strategy": "steps", "save_steps": 2},
        folder,
    )
    from palaestra.integrations.trl.trainer import PalaestraTrainer as Again

    again = Again(whole.recipe, whole.args)
    again.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    pairs = zip(whole.loaded.model.parameters(), again.loaded.model.parameters(), strict=True)
    return {
        "difference": max(float((a - b).detach().abs().max()) for a, b in pairs),
        "state": distance(whole.learner.algorithm.state_dict(), again.learner.algorithm.state_dict()),
        "steps": again.state.global_step,
    }


RATES: dict[str, list[str]] = {
    schedule: [f"optimiser={{lr: 1.0e-3, schedule: {schedule}, warmup: 0.3, floor: 0.1}}"]
    for schedule in ("constant", "linear", "cosine")
}


def rates(folder: Path) -> dict[str, Any]:
    """Of five iterations of four steps: what our optimiser would take, and what TRL's took."""
    found = {}
    for schedule, overrides in RATES.items():
        steps = ["learner.mini_batches=2", "learner.epochs=2", "budget.iterations=5", "tasks.max_turns=1"]
        _, recorder, recipe = train("grpo", [*overrides, *steps], {}, folder)
        ours = [learning_rate(recipe.optimiser, step // 4, 5) for step in range(20)]
        found[schedule] = {"ours": ours, "theirs": recorder.rates}
    return found


def within_an_iteration(folder: Path) -> str:
    """Resumed where the episodes are lost."""
    steps = ["learner.mini_batches=2", "out=" + str(folder / "within")]
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer, _, _ = train("epo", steps, saving, folder)
    checkpoint = Path(trainer.args.output_dir) / "checkpoint-2"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, "global_step": 1}))
    return refusal(lambda: PalaestraTrainer(trainer.recipe, trainer.args).train(resume_from_checkpoint=str(checkpoint)))


def refused(folder: Path, *overrides: str, arguments: dict[str, Any] | None = None, **told: Any) -> str:
    def run() -> None:
        recipe = recipe_of("grpo", [*overrides], folder)
        PalaestraTrainer(recipe, grpo_config(recipe, disable_tqdm=True, **(arguments or {})), **told).train()

    return refusal(run)


def refusal(run: Callable[[], Any]) -> str:
    try:
        run()
    except PalaestraError as error:
        return str(error)
    return ""


def as_tools() -> dict[str, Any]:
    """The `environment_factory` form: what TRL's own schema reader makes of it, and an episode."""
    from transformers.utils import get_json_schema

    environment = environment_factory(load_suite("alfworld/small:train"))()
    first = environment.reset(task=0, prompt="")
    seen = environment.act("look")
    return {
        "schema": get_json_schema(environment.act)["function"],
        "first": first,
        "seen": seen,
        "reward": environment.get_reward(),
    }


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    found: dict[str, Any] = {name: compared(name, *RUNS[name], folder) for name in names or RUNS}
    if not names:
        found["resumed"] = resumed(folder)
        found["rates"] = rates(folder)
        found["tools"] = as_tools()
        found["refused"] = {
            "ppo": refused(folder, "algorithm.name=ppo"),
            "window": refused(folder, "agent.context=window", "agent.window_turns=1"),
            "choice": refused(folder, "agent.action=choice", head="trl"),
            "within": within_an_iteration(folder),
            "save_steps": refused(
                folder, "learner.mini_batches=2", arguments={"save_strategy": "steps", "save_steps": 1}
            ),
        }
    (folder / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
