"""Algorithms by name. Each is one file: its settings, the plug-ins that it adds, and a `build` function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from palaestra.config import AlgorithmConfig, Recipe, convert, to_dict
from palaestra.errors import ConfigError, UnknownNameError, nearest
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import epo, grpo


@dataclass(frozen=True, slots=True)
class AlgorithmEntry:
    """One known algorithm."""

    settings: type[msgspec.Struct]
    """What `algorithm.settings.NAME` may hold."""
    build: Callable[[AlgorithmConfig, Any], Algorithm]
    """Called with the shared base and its settings."""


ALGORITHMS: dict[str, AlgorithmEntry] = {
    "epo": AlgorithmEntry(epo.Settings, epo.build),
    "grpo": AlgorithmEntry(grpo.Settings, grpo.build),
}
"""Add an entry to make an algorithm available to recipes."""


def resolve_algorithm(config: AlgorithmConfig) -> AlgorithmConfig:
    """The configuration with every setting of the named algorithm present.

    Raises:
        UnknownNameError: no algorithm has that name.
        ConfigError: a setting that an algorithm does not have or cannot have, of whichever algorithm.
    """
    settings = to_dict(_settings(config))
    return msgspec.structs.replace(config, settings={**config.settings, config.name: settings})


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm of a recipe.

    Raises:
        UnknownNameError: no algorithm has that name.
        ConfigError: settings that do not fit, or parts that cannot work together.
    """
    config = recipe.algorithm
    algorithm = _entry(config.name).build(config, _settings(config))
    _check(algorithm, recipe)
    return algorithm


def _entry(name: str) -> AlgorithmEntry:
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def _settings(config: AlgorithmConfig) -> msgspec.Struct:
    """Those of the named algorithm. Those of the others are checked as well, or a slip would go unnoticed."""
    known = {name: _converted(config, name) for name in [*config.settings, config.name]}
    return known[config.name]


def _converted(config: AlgorithmConfig, name: str) -> msgspec.Struct:
    if name not in ALGORITHMS and name in config.settings:
        close = nearest(name, ALGORITHMS)
        known = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(ALGORITHMS)}"
        raise ConfigError(f"unknown key {f'algorithm.settings.{name}'!r}; {known}")
    return convert(config.settings.get(name, {}), _entry(name).settings, path=f"algorithm.settings.{name}")


def _check(algorithm: Algorithm, recipe: Recipe) -> None:
    """Refuse mixes that cannot learn or contradict themselves, before anything is played."""
    config = recipe.algorithm
    if algorithm.drop_uniform_groups and any(term.needs_all for term in algorithm.terms):
        raise ConfigError(
            f"algorithm.drop_uniform_groups: {algorithm.name} has terms with a gradient in every group "
            "(entropy or KL); set it to false or null"
        )
    if recipe.rollout.group_size == 1 and config.singleton == "zero":
        raise ConfigError("rollout.group_size 1 gives every episode advantage 0; use at least 2, or singleton=raw")
    if config.mismatch_cap and recipe.learner.old_logprobs == "rollout":
        raise ConfigError(
            "algorithm.mismatch_cap compares engine and learner, so it needs learner.old_logprobs=learner"
        )
