"""GRPOTrainer with our environments, agents and algorithms.

dataset of tasks → rollout_func: episodes, played by the recipe's agent → env_mask
  → _generate_and_score_completions: (B, T) advantages
  → _compute_loss: the algorithm's terms → TRL's backward, optimiser, logging, checkpoints
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from datasets import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from trl import GRPOTrainer

from palaestra.agents.models import LoadedModel, load_model
from palaestra.agents.rollout import Episode
from palaestra.config import LearnerConfig, Recipe
from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.errors import ConfigError, TrainingError
from palaestra.integrations.layout import Layout
from palaestra.integrations.objective import (
    Iteration,
    Step,
    begin,
    check_algorithm,
    load_memory,
    means,
    require_one_row,
    save_memory,
)
from palaestra.integrations.trl.arguments import grpo_config, warmup_steps
from palaestra.integrations.trl.head import TrlPolicy
from palaestra.training.algorithms import build_algorithm, resolve_algorithm
from palaestra.training.learner import Learner
from palaestra.training.optimiser import learning_rate
from palaestra.training.player import InProcessPlayer, Player
from palaestra.training.providers import Run
from palaestra.training.rows import build_rows
from palaestra.training.sampling import Walk
from palaestra.training.seams import Moment
from palaestra.training.statistics import rollout_statistics
from palaestra.trajectories.record import Trajectory


class PalaestraTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL is installed in its own environment only
    """Trains a recipe's agent on its tasks by its algorithm, in TRL's loop."""

    def __init__(
        self,
        recipe: Recipe,
        args: Any = None,
        *,
        loaded: LoadedModel | None = None,
        model: Any = None,
        player: Player | None = None,
        head: Literal["palaestra", "trl"] = "palaestra",
        loss: Literal["palaestra", "trl"] = "palaestra",
        **more: Any,
    ) -> None:
        """Args:
            recipe: tasks, agent, rollouts, algorithm, budget.
            args: a `GRPOConfig`; `grpo_config(recipe)` if not given.
            loaded: policy and tokenizer, instead of the recipe's model.
            model: what TRL trains, where it is more than the policy: a PEFT model around it.
            player: who plays, instead of this process.
            head: who computes log-probs and entropies: ours (no logits in memory, constrained choices), or TRL's.
            loss: the algorithm's terms, or TRL's own loss on the algorithm's advantages.
            more: of `GRPOTrainer`: callbacks, optimizers, ...

        Raises:
            ConfigError: the algorithm wants what TRL does not leave to it, or there are several processes.
        """
        recipe = msgspec.structs.replace(recipe, algorithm=resolve_algorithm(recipe.algorithm))
        args = args or grpo_config(recipe)
        algorithm = build_algorithm(recipe)
        check_algorithm(algorithm, "TRL")
        loaded = loaded or load_model(recipe.model.reference, dtype=recipe.model.dtype, device=recipe.model.device)
        self.recipe, self.loaded, self._loss_by = recipe, loaded, loss
        self.suite: TaskSuite = load_suite(recipe.tasks.train, **recipe.tasks.params)
        self.trajectories: list[Trajectory] = []
        """Of the present iteration."""
        self._iteration: Iteration | None = None
        self._step_now: tuple[int, Step] | None = None
        self._layout: Layout | None = None
        self._places: list[int] = []
        super().__init__(
            model=loaded.model if model is None else model,
            reward_funcs=_reward,
            args=args,
            train_dataset=task_dataset(self.suite, recipe),
            processing_class=loaded.tokenizer,
            rollout_func=_rollout,
            **more,
        )
        if self.accelerator.num_processes > 1:
            raise ConfigError("PalaestraTrainer runs in one process; for several GPUs use `palaestra train`")
        windows = self.args.steps_per_generation / self.args.gradient_accumulation_steps
        if windows % 1:
            raise ConfigError("steps_per_generation must be a multiple of gradient_accumulation_steps")
        self._windows = int(windows)
        self.player: Player = player or InProcessPlayer(recipe, loaded)
        self.learner = self._make_learner(algorithm, head)
        self.add_callback(_Steps(self))

    def _make_learner(self, algorithm: Any, head: str) -> Learner:
        """Scores, and keeps the algorithm; TRL has the optimiser."""
        recipe, policy = self.recipe, self.loaded.model
        training = policy.training
        config = LearnerConfig(
            micro_batch_tokens=recipe.learner.micro_batch_tokens,
            mini_batches=self._windows,
            epochs=self.num_iterations,
            old_logprobs=recipe.learner.old_logprobs,
            autocast=recipe.learner.autocast,
        )
        reference = None
        if "ref_logprob" in algorithm.requires:
            source = recipe.model
            reference = load_model(source.reference, dtype=source.dtype, device=source.device).model
        learner = Learner(policy, algorithm, config=config, seed=recipe.seed, reference=reference)
        if head == "trl":
            learner.policy = TrlPolicy(self, policy, self.model)
        if isinstance(self.player, InProcessPlayer):
            for part in algorithm.parts.attachments:
                part.attach(Run(recipe, self.loaded, self.player.chat, Path(self.args.output_dir)))
        policy.train(training)
        return learner

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's rates, which are those of its iterations; TRL's where the arguments name another schedule."""
        named = self.args.lr_scheduler_type, self.args.warmup_steps
        if self.lr_scheduler is None and named == (self.recipe.optimiser.schedule, warmup_steps(self.recipe)):
            config = msgspec.structs.replace(self.recipe.optimiser, lr=1.0)
            every, total = self._steps_an_iteration, max(1, num_training_steps // self._steps_an_iteration)
            self.lr_scheduler: Any = LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                lambda step: learning_rate(config, step // every, total),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    # ---- rollouts

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's columns of an iteration, with our advantages."""
        self._places = [int(each["task"]) for each in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        assert self._layout is not None
        layout, width = self._layout, output["completion_ids"].shape[1]
        iteration = self._iteration = self._begun(layout)
        assert iteration.batch.advantage is not None
        device = output["completion_ids"].device
        output["advantages"] = layout.completions(iteration.batch.advantage, width).to(device)
        if iteration.batch.old_logprob is not None and not iteration.fresh:
            output["old_per_token_logps"] = layout.completions(iteration.batch.old_logprob, width).to(device)
        output["row"] = layout.row.to(device)
        return output

    def _begun(self, layout: Layout) -> Iteration:
        total = max(1, self.state.max_steps // self._steps_an_iteration)
        iteration = begin(self.learner, layout.batch, Moment(self._number, total, self.recipe.seed))
        self._log_all({**means(rollout_statistics(self.trajectories)), **iteration.log})
        return iteration

    @property
    def _steps_an_iteration(self) -> int:
        return self._windows * int(self.num_iterations)

    @property
    def _number(self) -> int:
        """Of the iteration; right also after a resume."""
        return int(self.state.global_step) // self._steps_an_iteration

    def played(self) -> dict[str, Any]:
        """Play an episode for each of TRL's rows; what `rollout_func` returns."""
        train = self.model.training
        size = self.num_generations if train else self.num_generations_eval
        version, name = self._number, f"{self._number}" if train else f"evaluation {self._number}"
        episodes = [
            Episode(
                task=self.suite[place],
                id=f"{name}/{at // size}/{at % size}",
                group=f"{name}/{at // size}",
                seed=self.recipe.seed,
            )
            for at, place in enumerate(self._places)
        ]
        self.model.eval()
        try:
            planner = self.learner.algorithm.parts.planner if train else None
            trajectories = asyncio.run(self._play(episodes, version, planner, train))
        finally:
            self.model.train(train)
        self.trajectories = trajectories
        penalty = self.learner.algorithm.invalid_penalty
        rows = build_rows(trajectories, temperature=self.recipe.agent.temperature, invalid_penalty=penalty)
        if not rows.trajectories:
            first = next((t.error for t in trajectories if t.error), "nothing was sampled")
            raise TrainingError(f"iteration {version}: no episode can be learned from ({rows.left_out}): {first}")
        require_one_row(rows.batch)
        self._layout = Layout.of(rows.batch, [e.id for e in episodes], [t.id for t in rows.trajectories])
        filled = self._layout.rollout(self._tokenizer.pad_token_id)
        return {**filled, "episode_reward": [trajectory.total_reward for trajectory in trajectories]}

    async def _play(self, episodes: Sequence[Episode], version: int, planner: Any, train: bool) -> list[Trajectory]:
        trajectories = await self.player.play(episodes, version, planner)
        if train:
            moment = Moment(version, max(1, self.state.max_steps // self._steps_an_iteration), self.recipe.seed)
            for supplier in self.learner.algorithm.parts.suppliers:
                await supplier.fetch(trajectories, moment)
        return trajectories

    # ---- loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The algorithm's loss of TRL's micro-batch."""
        iteration = self._iteration
        if not self.model.training or self._loss_by == "trl":
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        if iteration is None:
            raise TrainingError("no iteration has begun: resume from a checkpoint at an iteration's end")
        accumulated = self.args.gradient_accumulation_steps
        number, place = divmod(self._step % (self._steps_an_iteration * accumulated), accumulated)
        if self._step_now is None or self._step_now[0] != number or place == 0:
            self._step_now = number, iteration.step(number, self._rows_of(number % self._windows))
        step, rows = self._step_now[1], inputs["row"].cpu()
        total = step.loss(rows[rows >= 0], self.learner.policy)
        if place == 0 and (again := step.replayed_loss(self.learner.policy)) is not None:
            total = total + again
        if place == accumulated - 1:
            self._log_all(step.values)
        if not total.requires_grad:  # nothing in it is trained, but TRL calls `backward` all the same
            total = total + 0.0 * sum(p.sum() for p in self.loaded.model.parameters() if p.requires_grad)
        return total.to(device=self.accelerator.device, dtype=torch.float32)

    def _rows_of(self, window: int) -> Tensor:
        """[b] int64: rows of an optimiser step, from the micro-batches that TRL will ask for."""
        size = self.args.gradient_accumulation_steps
        parts = [part["row"] for part in self._buffered_inputs[window * size : (window + 1) * size]]
        rows = torch.cat(parts).cpu()
        return rows[rows >= 0].sort().values

    def _log_all(self, values: dict[str, float]) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in values.items():
            self._metrics[mode][f"palaestra/{name}"].append(value)

    def before_training(self) -> None:
        """Refuse to begin, or to be resumed, within an iteration, whose episodes no checkpoint has.

        Raises:
            ConfigError: naming what is not a multiple of an iteration's steps.
        """
        every = self._steps_an_iteration
        if int(self.state.global_step) % every:
            raise ConfigError(
                f"the checkpoint is of step {self.state.global_step}, within an iteration of {every} steps: resume "
                "from one at an iteration's end"
            )
        if self.args.save_strategy == "steps" and int(self.state.save_steps) % every:
            raise ConfigError(
                f"save_steps is {self.state.save_steps}, and an iteration has {every} steps: checkpoints are made at "
                f"iterations' ends, so set it to a multiple of {every}"
            )

    def after_step(self) -> None:
        """Move the algorithm's memory where an iteration's last step has been taken."""
        if self._iteration is not None and self.state.global_step % self._steps_an_iteration == 0:
            self._iteration.end()
            self._iteration = self._step_now = None

    # ---- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        save_memory(self.learner.algorithm, folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_memory(self.learner.algorithm, Path(checkpoint))


class _Steps(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    def __init__(self, trainer: PalaestraTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.before_training()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.after_step()


def task_dataset(suite: TaskSuite, recipe: Recipe) -> Any:
    """One row per group that the recipe plays, in the order of its walk through the suite.

    Columns: `prompt`, the task's name, and `task`, its place in the suite.
    """
    walk, groups = Walk(recipe.seed), recipe.rollout.groups * recipe.budget.iterations
    places = [walk.place(position, len(suite)) for position in range(groups)]
    return Dataset.from_dict({"prompt": [suite[place].name for place in places], "task": places})


def _rollout(prompts: list[Any], trainer: PalaestraTrainer) -> dict[str, Any]:
    return trainer.played()


def _reward(episode_reward: list[float], **kwargs: Any) -> list[float]:
    """What the environment gave; TRL logs it."""
    return list(episode_reward)
