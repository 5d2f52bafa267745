"""Algorithms by name: presets of the base's keys (`palaestra.config.PRESETS`) and of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from palaestra.config import PRESETS, AlgorithmConfig, Recipe, convert, to_dict
from palaestra.errors import ConfigError, UnknownNameError, nearest
from palaestra.training.algorithm import Algorithm, GroupAdvantage, joined
from palaestra.training.levels import curriculum_parts
from palaestra.training.plugins import PLUGINS
from palaestra.training.policy_loss import POLICY_LOSSES, Bounds, PolicyLoss
from palaestra.training.seams import Parts, Term
from palaestra.training.terms import EntropyBonus, KLPenalty, constant_of


@dataclass(frozen=True, slots=True)
class AlgorithmEntry:
    """One known algorithm."""

    summary: str
    """What it attacks, in one line."""
    source: str
    """Authors, year and arXiv id."""


ALGORITHMS: dict[str, AlgorithmEntry] = {
    "aepo": AlgorithmEntry(
        "clipping removes the gradient of exactly the uncertain tokens that explore (the update half)",
        PLUGINS["aepo"].source,
    ),
    "asym_clip": AlgorithmEntry(
        "clipping from above lowers entropy and clipping from below raises it: the bounds hold it where it is",
        "Park et al. 2025, arXiv 2509.26114",
    ),
    "dapo": AlgorithmEntry(
        "entropy collapse, groups without signal, long episodes that weigh too little, noise from cut-off episodes",
        "Yu et al. 2025, arXiv 2503.14476",
    ),
    "dr_grpo": AlgorithmEntry(
        "GRPO's bias towards long wrong answers, and towards tasks whose rewards hardly differ",
        "Liu et al. 2025, arXiv 2503.20783",
    ),
    "empg": AlgorithmEntry(PLUGINS["empg"].summary, PLUGINS["empg"].source),
    "epo": AlgorithmEntry(PLUGINS["epo"].summary, PLUGINS["epo"].source),
    "gigpo": AlgorithmEntry(PLUGINS["gigpo"].summary, PLUGINS["gigpo"].source),
    "grpo": AlgorithmEntry(
        "credit without a critic: an episode against the others of its group",
        "Shao et al. 2024, arXiv 2402.03300",
    ),
    "gspo": AlgorithmEntry(
        "token ratios are noise where the reward is one number for the whole sequence",
        "Zheng et al. 2025, arXiv 2507.18071",
    ),
    "hpt": AlgorithmEntry(PLUGINS["hpt"].summary, PLUGINS["hpt"].source),
    "knapsack": AlgorithmEntry(PLUGINS["knapsack"].summary, PLUGINS["knapsack"].source),
    "ppo": AlgorithmEntry(PLUGINS["ppo"].summary, PLUGINS["ppo"].source),
    "dr_bot": AlgorithmEntry(
        "known instabilities of GRPO with agents: broken episodes, groups that say little, biased denominators",
        "Qin et al. 2025, arXiv 2509.22601",
    ),
    "spear": AlgorithmEntry(
        "explore early, exploit late: a reward for acting that fades out, imitation of own successes that fades in",
        "Qin et al. 2025, arXiv 2509.22601",
    ),
    "reinforce": AlgorithmEntry(
        "the policy gradient itself, without baseline and clip, to compare with",
        "Williams 1992, Machine Learning 8",
    ),
    "rloo": AlgorithmEntry(
        "an unbiased baseline without a critic: the mean of the other episodes",
        "Ahmadian et al. 2024, arXiv 2402.14740",
    ),
    "spo": AlgorithmEntry(PLUGINS["spo_tracker"].summary, PLUGINS["spo_tracker"].source),
}
"""What `algorithm.name` may be; see `register_algorithm`."""


def register_algorithm(name: str, summary: str, source: str, preset: Mapping[str, Any]) -> None:
    """Make an algorithm available to recipes.

    Args:
        name: `algorithm.name`.
        summary: what it attacks, in one line.
        source: authors, year and arXiv id.
        preset: keys of `AlgorithmConfig` and their values there, `plugins` among them.

    Raises:
        ConfigError: another one has its name, or the preset is none.
    """
    if name in ALGORITHMS:
        raise ConfigError(f"there is an algorithm {name!r} already; give yours another name")
    convert(dict(preset), AlgorithmConfig, path=f"preset of {name}")
    ALGORITHMS[name], PRESETS[name] = AlgorithmEntry(summary, source), dict(preset)


def resolve_algorithm(config: AlgorithmConfig) -> AlgorithmConfig:
    """The configuration with every setting of its plug-ins present.

    Raises:
        UnknownNameError: no algorithm or plug-in has that name.
        ConfigError: a setting that a plug-in does not have or cannot have, of whichever plug-in.
    """
    known = _settings(config)
    own = {name: to_dict(known[name]) for name in config.plugins}
    return msgspec.structs.replace(config, settings={**config.settings, **own})


def build_algorithm(recipe: Recipe) -> Algorithm:
    """The algorithm of a recipe.

    Raises:
        UnknownNameError: no algorithm or plug-in has that name.
        ConfigError: settings that do not fit, or parts that cannot work together.
    """
    config = recipe.algorithm
    settings = _settings(config)
    if len(set(config.plugins)) < len(config.plugins):
        raise ConfigError(f"algorithm.plugins: a plug-in is named twice ({', '.join(config.plugins)})")
    if config.name in PLUGINS and config.name not in config.plugins:
        raise ConfigError(
            f"algorithm.plugins leaves out {config.name!r}, which algorithm.name stands for: add it, or use "
            "algorithm.name=grpo"
        )
    brought = {name: PLUGINS[name].build(settings[name], recipe) for name in config.plugins}
    brought |= curriculum_parts(recipe)
    parts = joined({"": Parts(terms=base_terms(recipe)), **brought})
    # A token shaper's statistics are of whatever is forwarded with a token, rows without advantage among it.
    all_matter = bool(parts.token_shapers) or any(term.needs_all for term in parts.terms)
    drop = config.drop_uniform_groups
    algorithm = Algorithm(
        name=config.name,
        parts=parts,
        advantage=parts.advantage or GroupAdvantage(config.normalise, config.weighting, config.singleton),
        invalid_penalty=config.invalid_penalty,
        drop_uniform_groups=not all_matter if drop is None else drop,
    )
    _check(algorithm, brought, recipe, all_matter=all_matter)
    return algorithm


def base_terms(recipe: Recipe) -> tuple[Term, ...]:
    """The policy loss, and entropy bonus and KL penalty where there are such.

    Raises:
        UnknownNameError: there is no such policy loss.
    """
    config = recipe.algorithm
    if config.policy_loss not in POLICY_LOSSES:
        raise UnknownNameError("policy loss", config.policy_loss, POLICY_LOSSES)
    constant = constant_of(recipe, config.aggregation)
    bounds = Bounds(config.clip_low, config.clip_high, config.dual_clip)
    terms: list[Term] = [PolicyLoss(config.policy_loss, bounds, config.aggregation, constant)]
    if config.kl_coeff:
        terms.append(KLPenalty(config.kl_coeff, config.kl_kind, config.aggregation, constant))
    if config.entropy_coeff:
        terms.append(EntropyBonus(config.entropy_coeff, config.aggregation, constant))
    return tuple(terms)


def _settings(config: AlgorithmConfig) -> dict[str, msgspec.Struct]:
    """Those of its plug-ins. Those of others are checked as well, or a slip would go unnoticed."""
    if config.name not in ALGORITHMS:
        raise UnknownNameError("algorithm", config.name, ALGORITHMS)
    for name in config.plugins:
        if name not in PLUGINS:
            raise UnknownNameError("plug-in", name, PLUGINS)
    return {name: _converted(config, name) for name in [*config.settings, *config.plugins]}


def _converted(config: AlgorithmConfig, name: str) -> msgspec.Struct:
    if name not in PLUGINS:
        close = nearest(name, PLUGINS)
        known = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(PLUGINS)}"
        raise ConfigError(f"unknown key {f'algorithm.settings.{name}'!r}; {known}")
    return convert(config.settings.get(name, {}), PLUGINS[name].settings, path=f"algorithm.settings.{name}")


def _check(algorithm: Algorithm, brought: Mapping[str, Parts], recipe: Recipe, *, all_matter: bool) -> None:
    """Refuse mixes that cannot learn or contradict themselves, before anything is played."""
    if recipe.algorithm.drop_uniform_groups and all_matter:
        raise ConfigError(
            f"algorithm.drop_uniform_groups: {algorithm.name} has terms with a gradient in every group "
            "(entropy or KL), or reads every row; set it to false or null"
        )
    if algorithm.parts.reference is not None and "ref_logprob" not in algorithm.requires:
        raise ConfigError(
            f"algorithm.plugins ({', '.join(name for name, parts in brought.items() if parts.reference)}) move a "
            "reference model that nothing reads: set algorithm.kl_coeff, 0.001 for example"
        )
    if recipe.rollout.group_size == 1:
        _check_single(algorithm, recipe.algorithm)
    if recipe.learner.old_logprobs == "rollout" and "scored" in algorithm.requires:
        raise ConfigError(
            f"algorithm.plugins ({', '.join(name for name, parts in brought.items() if _scored(parts))}) read the "
            "learner's log-probs and entropies, so they need learner.old_logprobs=learner"
        )


def _check_single(algorithm: Algorithm, config: AlgorithmConfig) -> None:
    """Groups of one have no advantage by comparison."""
    for name in config.plugins:
        if PLUGINS[name].groups:
            raise ConfigError(f"rollout.group_size 1: the plug-in {name} compares episodes of a group; use at least 2")
    if algorithm.parts.advantage is None and config.singleton == "zero" and config.normalise != "none":
        raise ConfigError("rollout.group_size 1 gives every episode advantage 0; use at least 2, or singleton=raw")


def _scored(parts: Parts) -> bool:
    return "scored" in Algorithm("", parts).requires
