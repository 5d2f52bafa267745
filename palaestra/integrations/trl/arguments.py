"""TRL's arguments as a recipe means them."""

from __future__ import annotations

import math
from typing import Any

from trl import GRPOConfig

from palaestra.config import Recipe
from palaestra.errors import ConfigError


def grpo_config(recipe: Recipe, *, micro_batch: int = 0, **more: Any) -> Any:
    """The `GRPOConfig` of a recipe: batch and group sizes, steps, rates, temperature.

    Args:
        recipe: `rollout`, `optimiser`, `learner` and `budget` are read.
        micro_batch: episodes of one of TRL's micro-batches; 0 for all of an optimiser step.
        more: any of `GRPOConfig`'s arguments, which replace ours.

    Raises:
        ConfigError: the sizes do not divide each other.
    """
    episodes = recipe.rollout.groups * recipe.rollout.group_size
    windows, rest = recipe.learner.mini_batches, episodes % recipe.learner.mini_batches
    size = episodes // windows
    micro_batch = micro_batch or size
    if rest or size % micro_batch:
        raise ConfigError(
            f"{episodes} episodes cannot be shared out evenly: mini_batches {windows}, micro_batch {micro_batch}"
        )
    accumulated = size // micro_batch
    optimiser = recipe.optimiser
    given = {
        "output_dir": str(recipe.directory),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulated,
        "steps_per_generation": accumulated * windows,
        "num_iterations": recipe.learner.epochs,
        "num_generations": recipe.rollout.group_size,
        "max_steps": recipe.budget.iterations * windows * recipe.learner.epochs,
        "max_completion_length": recipe.tasks.max_turns * recipe.agent.max_tokens,
        "temperature": recipe.agent.temperature,
        "learning_rate": optimiser.lr,
        "lr_scheduler_type": optimiser.schedule,
        "warmup_steps": warmup_steps(recipe),
        "weight_decay": optimiser.weight_decay,
        "adam_beta1": optimiser.betas[0],
        "adam_beta2": optimiser.betas[1],
        "max_grad_norm": optimiser.grad_clip,
        "gradient_checkpointing": recipe.learner.gradient_checkpointing,
        "bf16": recipe.learner.autocast == "bfloat16",
        "seed": recipe.seed,
        "beta": 0.0,  # a KL penalty is the algorithm's
        "shuffle_dataset": False,  # the rows are in the order of the recipe's own walk
        "disable_dropout": True,
        "remove_unused_columns": False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": recipe.model.device == "cpu",
    }
    return GRPOConfig(**{**given, **more})


def warmup_steps(recipe: Recipe) -> int:
    """Optimiser steps of the iterations in which the rate goes up."""
    iterations = math.ceil(recipe.optimiser.warmup * recipe.budget.iterations)
    return iterations * recipe.learner.mini_batches * recipe.learner.epochs
