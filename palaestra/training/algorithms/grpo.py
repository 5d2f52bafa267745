"""GRPO: group relative policy optimisation (Shao et al. 2024).

An episode's credit is how much better it ended than the others that began in the same state,

    A_i = (R_i - mean of the group) / (std of the group + eps)

on all of its policy tokens; the loss is the clipped surrogate. A group in which all did equally well or badly says
nothing: its advantages are 0. `normalise=mean` with `aggregation=dr-grpo-mean` is Dr.GRPO (Liu et al. 2025);
`clip_high=0.28` with `aggregation=token-mean` is DAPO's loss (Yu et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from palaestra.config import AlgorithmConfig, Config, NonNegativeFloat
from palaestra.errors import ConfigError
from palaestra.training.aggregate import CONSTANT_MODES, Mode
from palaestra.training.algorithm import (
    Algorithm,
    EntropyBonus,
    GigpoAdvantage,
    GroupAdvantage,
    KLPenalty,
    PolicyLoss,
    Term,
    Tracker,
)
from palaestra.training.batch import Batch


class Settings(Config, frozen=True, kw_only=True):
    """What GRPO adds to the base."""

    entropy_coeff: NonNegativeFloat = 0.0
    """Weight of a plain entropy bonus. Note that verl-agent's "GRPO" baselines silently have 0.001."""


def build(config: AlgorithmConfig, settings: Settings) -> Algorithm:
    """GRPO with an optional plain entropy bonus."""
    terms = base_terms(config)
    if settings.entropy_coeff:
        terms = (
            *terms,
            EntropyBonus(settings.entropy_coeff, config.aggregation, constant_of(config, config.aggregation)),
        )
    return assemble(config, terms)


def base_terms(config: AlgorithmConfig) -> tuple[Term, ...]:
    """The policy loss, and the KL penalty where there is one."""
    policy = PolicyLoss(
        aggregation=config.aggregation,
        constant=constant_of(config, config.aggregation),
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
        mismatch_cap=config.mismatch_cap,
    )
    if not config.kl_coeff:
        return (policy,)
    return policy, KLPenalty(
        config.kl_coeff, config.kl_kind, config.aggregation, constant_of(config, config.aggregation)
    )


def assemble(
    config: AlgorithmConfig, terms: tuple[Term, ...], trackers: Mapping[str, Tracker] = MappingProxyType({})
) -> Algorithm:
    """An algorithm with the recipe's advantage and the given terms."""
    drop = config.drop_uniform_groups
    return Algorithm(
        name=config.name,
        advantage=advantage_of(config),
        terms=terms,
        trackers=trackers,
        invalid_penalty=config.invalid_penalty,
        drop_uniform_groups=not any(term.needs_all for term in terms) if drop is None else drop,
    )


def advantage_of(config: AlgorithmConfig) -> Callable[[Batch], Tensor]:
    """Credit of whole episodes, or of their steps too.

    Raises:
        ConfigError: GiGPO with a normalisation that it does not have.
    """
    if config.advantage == "group":
        return GroupAdvantage(config.normalise, config.weighting, config.singleton)
    if config.normalise == "rloo":
        raise ConfigError("algorithm.advantage gigpo has algorithm.normalise std or mean, not rloo")
    return GigpoAdvantage(config.normalise, config.weighting, config.singleton, config.gigpo.gamma, config.gigpo.omega)


def constant_of(config: AlgorithmConfig, mode: Mode, key: str = "algorithm.aggregation") -> float | None:
    """The divisor of aggregation `mode`, in tokens; `None` for the modes without one. `key` is where the mode stands.

    Raises:
        ConfigError: the mode has a divisor, and the recipe gives none.
    """
    if mode not in CONSTANT_MODES:
        return None
    if not config.aggregation_constant:
        raise ConfigError(f"{key} {mode} needs algorithm.aggregation_constant (tokens)")
    return config.aggregation_constant
