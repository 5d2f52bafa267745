"""The run directory: who may enter it, and with which recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palaestra.config import Recipe, load_recipe, to_dict, to_yaml
from palaestra.errors import ConfigError, PalaestraError
from palaestra.files import replace_text
from palaestra.training.checkpoint import list_checkpoints
from palaestra.training.ranks import on_first, wait

FREE_TO_CHANGE = ("out", "budget", "evaluation", "checkpoint", "tensorboard", "optimiser", "cluster")
"""Sections in which a resumed run may differ from what was begun."""


def check_directory(recipe: Recipe, *, resume: bool) -> None:
    """Look for why `open_directory` would refuse, before anybody spends minutes on what it is needed for.

    Raises:
        ConfigError: the directory holds a run and `resume` is off, or that run has other settings.
    """
    saved = recipe.directory / "recipe.yaml"
    if not saved.exists():
        return
    if not resume:
        raise ConfigError(f"{saved.parent} already holds a run; resume it (--resume) or choose another with out=")
    changed = sorted(_differences(to_dict(load_recipe(saved)), to_dict(recipe)))
    if changed:
        raise ConfigError(
            f"cannot resume {saved.parent} with other settings ({', '.join(changed)}); choose another out="
        )


def open_directory(recipe: Recipe, *, resume: bool) -> Path:
    """Make or enter the run directory, and save the resolved recipe there.

    A recipe that a resumed run leaves behind stays as `recipe.000012.yaml`: what was done up to that checkpoint was
    done by it.

    Raises:
        ConfigError: the directory holds a run and `resume` is off, or that run has other settings.
        PalaestraError: it cannot be written.
    """
    wait()  # until every rank has looked at what is there
    on_first(lambda: _open(recipe, resume), ConfigError)
    return recipe.directory


def _open(recipe: Recipe, resume: bool) -> None:
    check_directory(recipe, resume=resume)
    directory = recipe.directory
    saved = directory / "recipe.yaml"
    try:
        if saved.exists():
            _keep_earlier(recipe, saved)
        directory.mkdir(parents=True, exist_ok=True)
        if not list_checkpoints(directory / "checkpoints"):  # killed before its first one: it begins again
            (directory / "metrics.jsonl").unlink(missing_ok=True)
            (directory / "trajectories" / "train.ptj").unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise PalaestraError(f"cannot write run directory {directory}: {reason}; choose another with out=") from error
    replace_text(saved, to_yaml(recipe))


def _keep_earlier(recipe: Recipe, saved: Path) -> None:
    """Keep a copy of the recipe that was followed so far, if the run goes on with another."""
    earlier, checkpoints = load_recipe(saved), list_checkpoints(saved.parent / "checkpoints")
    if earlier != recipe and checkpoints:
        kept = saved.with_name(f"recipe.{checkpoints[-1].name}.yaml")
        if not kept.exists():
            replace_text(kept, to_yaml(earlier))


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys, with their path, that have other values; sections that may change are left out."""
    found: list[str] = []
    for key in [*before, *(k for k in now if k not in before)]:
        if not prefix and key in FREE_TO_CHANGE:
            continue
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found
