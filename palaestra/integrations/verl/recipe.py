"""The recipe that a verl run plays and learns by: `+palaestra.recipe=FILE` on its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from palaestra.config import Recipe, load_recipe
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError
from palaestra.integrations.objective import check_algorithm
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import build_algorithm, resolve_algorithm


def recipe_of(config: Any) -> Recipe:
    """The recipe that verl's configuration names.

    Raises:
        ConfigError: it names none, or the recipe does not fit.
    """
    given = config.get("palaestra", None)
    if not given or not given.get("recipe", None):
        raise ConfigError("verl's configuration names no recipe: add +palaestra.recipe=recipes/demo.yaml")
    recipe = load_recipe(given["recipe"], list(given.get("overrides", None) or ()))
    return msgspec.structs.replace(recipe, algorithm=resolve_algorithm(recipe.algorithm))


def algorithm_of(recipe: Recipe) -> Algorithm:
    """Its algorithm.

    Raises:
        ConfigError: it wants what verl's loop has no place for.
    """
    algorithm = build_algorithm(recipe)
    check_algorithm(algorithm, "verl")
    parts = algorithm.parts
    foreign = {
        "trains earlier episodes again (algorithm.settings.self_imitation.coef=0 leaves that out)": parts.replays,
        "asks other models for log-probs": parts.providers,
        "plays a group as a tree": parts.planner,
        "plays before an update": parts.suppliers,
    }
    for does, part in foreign.items():
        if part:
            raise ConfigError(f"algorithm {algorithm.name} {does}, which verl's loop has no place for")
    return algorithm


def write_dataset(recipe: Recipe, path: str | Path, split: str = "train", tasks: int = 0) -> int:
    """Write verl's data file (Parquet) for the recipe's tasks; give it as `data.train_files`.

    Args:
        recipe: names the suites.
        path: of the file.
        split: `train`, `validation` or `test`.
        tasks: how many, from the front; 0 for all.

    Returns:
        The number of rows, a task each.
    """
    from datasets import Dataset

    suite = load_suite(getattr(recipe.tasks, split), **recipe.tasks.params)
    count = min(tasks or len(suite), len(suite))
    rows = [
        {
            "prompt": [{"role": "user", "content": suite[place].name}],
            "data_source": suite.name,
            "agent_name": "palaestra",
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": place, "split": split},
        }
        for place in range(count)
    ]
    Dataset.from_list(rows).to_parquet(str(path))
    return count
