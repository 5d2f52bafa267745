"""The package itself: imported when it is first needed, and looked at with suspicion."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from palaestra.envs.versions import Supported
from palaestra.errors import EnvError, require

SUPPORTED = Supported("textarena", "0.7.4")


def open_game(id: str, players: int, seed: int) -> Any:
    """A new instance of the package's own environment, reset and without any of its wrappers.

    Raises:
        MissingExtraError: textarena is not installed.
        EnvError: it is of a version that has other names or shapes, or its game fails.
    """
    require("textarena", "textarena")
    try:
        spec = import_module("textarena.envs.registration").ENV_REGISTRY[id]
        module, _, name = spec.entry_point.partition(":")
        env = getattr(import_module(module), name)(**spec.kwargs)
        env.reset(num_players=players, seed=seed)
        env.state.observations, env.state.error_count  # noqa: B018  # what every state has
    except Exception as error:
        raise failure(id, error) from error
    return env


def failure(id: str, error: Exception) -> EnvError:
    """What to raise where code of the package raised `error`."""
    if SUPPORTED.is_found:
        return EnvError(f"textarena's {id} failed: {type(error).__name__}: {str(error)[:200]}")
    return SUPPORTED.misfit(error)
