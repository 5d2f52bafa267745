"""GRPO: group relative policy optimisation (Shao et al. 2024), and what is assembled around it.

An episode's credit is how much better it ended than the others that began in the same state,

    A_i = (R_i - mean of the group) / (std of the group + eps)

on all of its policy tokens; the loss is the clipped surrogate. A group in which all did equally well or badly says
nothing: its advantages are 0. Dr.GRPO, RLOO, REINFORCE, DAPO, GSPO and GiGPO are the same plug-ins with other defaults
(`palaestra.config.PRESETS`); every key of the base can be combined with every other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from palaestra.config import AlgorithmConfig, Config, NonNegativeFloat
from palaestra.errors import ConfigError, UnknownNameError
from palaestra.training.aggregate import CONSTANT_MODES, Mode
from palaestra.training.algorithm import (
    Algorithm,
    EntropyBonus,
    Filter,
    GigpoAdvantage,
    GroupAdvantage,
    KLPenalty,
    RewardShaper,
    Shaper,
    Term,
    TokenShaper,
    Tracker,
)
from palaestra.training.batch import Batch
from palaestra.training.filters import FILTERS
from palaestra.training.overlong import OverlongPenalty
from palaestra.training.policy_loss import POLICY_LOSSES, Bounds, PolicyLoss

Shapers = tuple[Shaper | TokenShaper, ...]
"""What a recipe's shapers are, in their order."""


class Settings(Config, frozen=True, kw_only=True):
    """What GRPO, and every algorithm that differs from it in defaults only, adds to the base."""

    entropy_coeff: NonNegativeFloat = 0.0
    """Weight of a plain entropy bonus. Note that verl-agent's "GRPO" baselines silently have 0.001."""


def build(config: AlgorithmConfig, settings: Settings, shapers: Shapers = ()) -> Algorithm:
    """GRPO with an optional plain entropy bonus."""
    terms = base_terms(config)
    if settings.entropy_coeff:
        terms = (
            *terms,
            EntropyBonus(settings.entropy_coeff, config.aggregation, constant_of(config, config.aggregation)),
        )
    return assemble(config, terms, shapers=shapers)


def base_terms(config: AlgorithmConfig) -> tuple[Term, ...]:
    """The policy loss, and the KL penalty where there is one.

    Raises:
        UnknownNameError: there is no such policy loss.
    """
    if config.policy_loss not in POLICY_LOSSES:
        raise UnknownNameError("policy loss", config.policy_loss, POLICY_LOSSES)
    constant = constant_of(config, config.aggregation)
    policy = PolicyLoss(
        kind=config.policy_loss,
        bounds=Bounds(config.clip_low, config.clip_high, config.dual_clip),
        aggregation=config.aggregation,
        constant=constant,
        mismatch_cap=config.mismatch_cap,
    )
    if not config.kl_coeff:
        return (policy,)
    return policy, KLPenalty(config.kl_coeff, config.kl_kind, config.aggregation, constant)


def assemble(
    config: AlgorithmConfig,
    terms: tuple[Term, ...],
    trackers: Mapping[str, Tracker] = MappingProxyType({}),
    shapers: Shapers = (),
) -> Algorithm:
    """An algorithm with the recipe's rewards, filters and advantage, and the given terms and shapers."""
    drop = config.drop_uniform_groups
    return Algorithm(
        name=config.name,
        advantage=advantage_of(config),
        terms=terms,
        trackers=trackers,
        rewards=rewards_of(config),
        filters=filters_of(config),
        shapers=tuple(shaper for shaper in shapers if not isinstance(shaper, TokenShaper)),
        token_shapers=tuple(shaper for shaper in shapers if isinstance(shaper, TokenShaper)),
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
    if config.normalise not in ("std", "mean"):
        raise ConfigError(f"algorithm.advantage gigpo has algorithm.normalise std or mean, not {config.normalise}")
    return GigpoAdvantage(config.normalise, config.weighting, config.singleton, config.gigpo.gamma, config.gigpo.omega)


def rewards_of(config: AlgorithmConfig) -> tuple[RewardShaper, ...]:
    """The penalty of overlong episodes, where there is one."""
    if not config.overlong_penalty:
        return ()
    limit = config.overlong.limit
    return (OverlongPenalty(limit, config.overlong.buffer * limit, config.overlong_penalty, config.overlong.unit),)


def filters_of(config: AlgorithmConfig) -> tuple[Filter, ...]:
    """The sample filters, in order.

    Raises:
        UnknownNameError: there is no such filter.
    """
    for name in config.filters:
        if name not in FILTERS:
            raise UnknownNameError("filter", name, FILTERS)
    return tuple(FILTERS[name].plugin() for name in config.filters)


def constant_of(config: AlgorithmConfig, mode: Mode) -> float | None:
    """The divisor of aggregation `mode`, in tokens; `None` for the modes without one."""
    return config.aggregation_constant if mode in CONSTANT_MODES else None
