"""Algorithms by name. Each is one file at most: its settings, the plug-ins that it adds, and a `build` function; its
defaults for the keys of the base are in `palaestra.config.PRESETS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from palaestra.config import AlgorithmConfig, Recipe, convert, to_dict
from palaestra.errors import ConfigError, UnknownNameError, nearest
from palaestra.training.algorithm import Algorithm, Shaper, TokenShaper
from palaestra.training.algorithms import aepo, empg, epo, grpo


@dataclass(frozen=True, slots=True)
class AlgorithmEntry:
    """One known algorithm."""

    summary: str
    """What it attacks, in one line."""
    source: str
    """Authors, year and arXiv id."""
    settings: type[msgspec.Struct] = grpo.Settings
    """What `algorithm.settings.NAME` may hold."""
    build: Callable[[AlgorithmConfig, Any, grpo.Shapers], Algorithm] = grpo.build
    """Called with the shared base, its settings and the recipe's shapers."""


@dataclass(frozen=True, slots=True)
class ShaperEntry:
    """One known shaper."""

    summary: str
    source: str
    settings: type[msgspec.Struct]
    """What `algorithm.settings.NAME` may hold."""
    build: Callable[[AlgorithmConfig, Any], Shaper | TokenShaper | None]
    """Called with the shared base and its settings; `None` where these switch it off."""


SHAPERS: dict[str, ShaperEntry] = {
    "aepo": ShaperEntry(
        "the update treats tokens alike, whether the policy was sure of them or exploring",
        "Dong et al. 2025, arXiv 2510.14545",
        aepo.Settings,
        aepo.shaper,
    ),
    "empg": ShaperEntry(
        "steps the policy is sure of get small updates, uncertain ones large and noisy updates",
        "Wang et al. 2025, arXiv 2509.09265",
        empg.Settings,
        lambda _, settings: empg.EntropyModulation(settings),
    ),
}
"""Add an entry to make a shaper available in `algorithm.shapers`."""

ALGORITHMS: dict[str, AlgorithmEntry] = {
    "aepo": AlgorithmEntry(
        "clipping removes the gradient of exactly the uncertain tokens that explore (the update half)",
        SHAPERS["aepo"].source,
        aepo.Settings,
        lambda config, _, shapers: grpo.build(config, grpo.Settings(), shapers),
    ),
    "dapo": AlgorithmEntry(
        "entropy collapse, groups without signal, long episodes that weigh too little, noise from cut-off episodes",
        "Yu et al. 2025, arXiv 2503.14476",
    ),
    "dr_grpo": AlgorithmEntry(
        "GRPO's bias towards long wrong answers, and towards tasks whose rewards hardly differ",
        "Liu et al. 2025, arXiv 2503.20783",
    ),
    "empg": AlgorithmEntry(
        SHAPERS["empg"].summary,
        SHAPERS["empg"].source,
        empg.Settings,
        lambda config, _, shapers: grpo.build(config, grpo.Settings(), shapers),
    ),
    "epo": AlgorithmEntry(
        "entropy that rises without bound early in long episodes, or collapses",
        "Xu et al. 2025, arXiv 2509.22576",
        epo.Settings,
        epo.build,
    ),
    "gigpo": AlgorithmEntry(
        "one reward at the end says nothing about single steps",
        "Feng et al. 2025, arXiv 2505.10978",
    ),
    "grpo": AlgorithmEntry(
        "credit without a critic: an episode against the others of its group",
        "Shao et al. 2024, arXiv 2402.03300",
    ),
    "gspo": AlgorithmEntry(
        "token ratios are noise where the reward is one number for the whole sequence",
        "Zheng et al. 2025, arXiv 2507.18071",
    ),
    "reinforce": AlgorithmEntry(
        "the policy gradient itself, without baseline and clip, to compare with",
        "Williams 1992, Machine Learning 8",
    ),
    "rloo": AlgorithmEntry(
        "an unbiased baseline without a critic: the mean of the other episodes",
        "Ahmadian et al. 2024, arXiv 2402.14740",
    ),
}
"""Add an entry to make an algorithm available to recipes."""


def resolve_algorithm(config: AlgorithmConfig) -> AlgorithmConfig:
    """The configuration with every setting of the named algorithm and of its shapers present.

    Raises:
        UnknownNameError: no algorithm or shaper has that name.
        ConfigError: a setting that an algorithm does not have or cannot have, of whichever algorithm.
    """
    known = _settings(config)
    own = {name: to_dict(known[name]) for name in (config.name, *config.shapers)}
    return msgspec.structs.replace(config, settings={**config.settings, **own})


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm of a recipe.

    Raises:
        UnknownNameError: no algorithm or plug-in has that name.
        ConfigError: settings that do not fit, or parts that cannot work together.
    """
    config = _complete(recipe)
    settings = _settings(config)
    shapers = tuple(SHAPERS[name].build(config, settings[name]) for name in config.shapers)
    present = tuple(shaper for shaper in shapers if shaper is not None)
    algorithm = ALGORITHMS[config.name].build(config, settings[config.name], present)
    _check(algorithm, recipe)
    return algorithm


def _complete(recipe: Recipe) -> AlgorithmConfig:
    """The base with the lengths that it takes from other sections of the recipe."""
    config, turns = recipe.algorithm, recipe.tasks.max_turns
    tokens = turns * recipe.agent.max_tokens
    longest = tokens if config.overlong.unit == "tokens" else turns
    overlong = msgspec.structs.replace(config.overlong, limit=config.overlong.limit or longest)
    constant = config.aggregation_constant or tokens
    return msgspec.structs.replace(config, overlong=overlong, aggregation_constant=constant)


def _settings(config: AlgorithmConfig) -> dict[str, msgspec.Struct]:
    """Those of the algorithm and its shapers. Those of others are checked as well, or a slip would go unnoticed."""
    if config.name not in ALGORITHMS:
        raise UnknownNameError("algorithm", config.name, ALGORITHMS)
    for name in config.shapers:
        if name not in SHAPERS:
            raise UnknownNameError("shaper", name, SHAPERS)
    return {name: _converted(config, name) for name in [*config.settings, config.name, *config.shapers]}


def _converted(config: AlgorithmConfig, name: str) -> msgspec.Struct:
    kinds = {n: e.settings for n, e in SHAPERS.items()} | {n: e.settings for n, e in ALGORITHMS.items()}
    if name not in kinds:
        close = nearest(name, kinds)
        known = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(kinds)}"
        raise ConfigError(f"unknown key {f'algorithm.settings.{name}'!r}; {known}")
    return convert(config.settings.get(name, {}), kinds[name], path=f"algorithm.settings.{name}")


def _check(algorithm: Algorithm, recipe: Recipe) -> None:
    """Refuse mixes that cannot learn or contradict themselves, before anything is played."""
    config = recipe.algorithm
    if algorithm.drop_uniform_groups and any(term.needs_all for term in algorithm.terms):
        raise ConfigError(
            f"algorithm.drop_uniform_groups: {algorithm.name} has terms with a gradient in every group "
            "(entropy or KL); set it to false or null"
        )
    if recipe.rollout.group_size == 1:
        _check_single(config)
    if len(set(config.shapers)) < len(config.shapers):
        raise ConfigError(f"algorithm.shapers: a shaper is named twice ({', '.join(config.shapers)})")
    if recipe.learner.old_logprobs == "rollout":
        _check_scored(algorithm, config)


def _check_single(config: AlgorithmConfig) -> None:
    """Groups of one have no advantage by comparison."""
    if "uniform_groups" in config.filters:
        raise ConfigError("rollout.group_size 1: the filter uniform_groups leaves out every group; use at least 2")
    if config.singleton == "zero" and config.normalise != "none":
        raise ConfigError("rollout.group_size 1 gives every episode advantage 0; use at least 2, or singleton=raw")


def _check_scored(algorithm: Algorithm, config: AlgorithmConfig) -> None:
    """What the engine that sampled cannot tell."""
    if config.mismatch_cap:
        raise ConfigError(
            "algorithm.mismatch_cap compares engine and learner, so it needs learner.old_logprobs=learner"
        )
    if algorithm.shapers:
        raise ConfigError(
            f"algorithm.shapers ({', '.join(config.shapers)}) read the learner's entropies, so they need "
            "learner.old_logprobs=learner"
        )
