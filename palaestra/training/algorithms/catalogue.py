"""Every algorithm and plug-in with its source, what it requires and its defaults: what `palaestra algorithms` lists."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from palaestra.config import PRESETS, AlgorithmConfig, Config, GigpoConfig, OverlongConfig, Recipe, TasksConfig, to_dict
from palaestra.training.algorithm import EntropyBonus, KLPenalty, TokenShaper
from palaestra.training.algorithms import ALGORITHMS, SHAPERS, AlgorithmEntry, build_algorithm
from palaestra.training.algorithms.epo import EntropyTracker, Smoothing
from palaestra.training.entropy import EntropyOptions
from palaestra.training.filters import FILTERS
from palaestra.training.kl import Kind
from palaestra.training.policy_loss import POLICY_LOSSES, Bounds, PolicyLoss


class Listing(Config, frozen=True, kw_only=True):
    """One line of the catalogue."""

    name: str
    """As recipes name it."""
    seam: str
    """Where it plugs in; `algorithm` for a whole recipe of plug-ins."""
    summary: str
    """What it attacks."""
    source: str
    """Paper."""
    use: str
    """The override that switches it on."""
    requires: tuple[str, ...] = ()
    """What it reads beyond log-probs, rewards and advantages; see `palaestra.training.algorithm.Need`."""
    defaults: dict[str, Any] = {}
    """Keys below `algorithm` and their values."""


def catalogue() -> list[Listing]:
    """All of them: algorithms first, then plug-ins in the order in which an iteration meets them."""
    return [
        *(_algorithm(name, entry) for name, entry in ALGORITHMS.items()),
        *_filters(),
        _overlong(),
        *_advantages(),
        *_shapers(),
        *_policy_losses(),
        *_terms(),
    ]


def _algorithm(name: str, entry: AlgorithmEntry) -> Listing:
    recipe = Recipe(name=name, tasks=TasksConfig(train=""), algorithm=AlgorithmConfig(name=name))
    return Listing(
        name=name,
        seam="algorithm",
        summary=entry.summary,
        source=entry.source,
        use=f"algorithm.name={name}",
        requires=tuple(sorted(build_algorithm(recipe).requires)),
        defaults={**PRESETS.get(name, {}), **_settings(name, entry.settings)},
    )


def _settings(name: str, settings: type[msgspec.Struct]) -> dict[str, Any]:
    return {f"settings.{name}.{key}": value for key, value in to_dict(settings()).items()}


def _filters() -> list[Listing]:
    return [
        Listing(name=name, seam="filter", summary=e.summary, source=e.source, use=f"algorithm.filters=[{name}]")
        for name, e in FILTERS.items()
    ]


def _overlong() -> Listing:
    return Listing(
        name="overlong",
        seam="reward",
        summary="an episode that is cut off at the limit is noise in the reward; a slope before it is not",
        source="Yu et al. 2025, arXiv 2503.14476",
        use="algorithm.overlong_penalty=1",
        defaults={f"overlong.{key}": value for key, value in to_dict(OverlongConfig()).items()},
    )


def _advantages() -> list[Listing]:
    group = [
        (
            "std",
            "returns of other tasks are no baseline; each task's scale is its own",
            "Shao et al. 2024, arXiv 2402.03300",
        ),
        (
            "mean",
            "dividing by the spread favours tasks whose rewards hardly differ",
            "Liu et al. 2025, arXiv 2503.20783",
        ),
        ("rloo", "an unbiased baseline: the mean of the others", "Ahmadian et al. 2024, arXiv 2402.14740"),
        ("none", "no baseline at all", "Williams 1992, Machine Learning 8"),
    ]
    listed = [
        Listing(name=name, seam="advantage", summary=summary, source=source, use=f"algorithm.normalise={name}")
        for name, summary, source in group
    ]
    gigpo = ALGORITHMS["gigpo"]
    defaults = {f"gigpo.{key}": value for key, value in to_dict(GigpoConfig()).items()}
    use = "algorithm.advantage=gigpo"
    step = Listing(
        name="gigpo", seam="advantage", summary=gigpo.summary, source=gigpo.source, use=use, defaults=defaults
    )
    return [*listed, step]


def _shapers() -> list[Listing]:
    listed = []
    for name, entry in SHAPERS.items():
        shaper = entry.build(AlgorithmConfig(), entry.settings())
        listed.append(
            Listing(
                name=name,
                seam="shaper",
                summary=entry.summary,
                source=entry.source,
                use=f"algorithm.shapers=[{name}]",
                requires=() if shaper is None or isinstance(shaper, TokenShaper) else tuple(sorted(shaper.requires)),
                defaults=_settings(name, entry.settings),
            )
        )
    return listed


def _policy_losses() -> list[Listing]:
    bounds, needs = Bounds(), tuple(sorted(PolicyLoss().requires))
    defaults = {"clip_low": bounds.clip_low, "clip_high": bounds.clip_high, "dual_clip": bounds.dual_clip}
    weight = Listing(
        name="mismatch",
        seam="weight",
        summary="the engine that samples and the learner disagree about probabilities",
        source="Yao et al. 2025, off-policy-rl note",
        use="algorithm.mismatch_cap=2",
        requires=needs,
    )
    losses = [
        Listing(
            name=name,
            seam="policy loss",
            summary=entry.summary,
            source=entry.source,
            use=f"algorithm.policy_loss={name}",
            requires=needs,
            defaults=defaults,
        )
        for name, entry in POLICY_LOSSES.items()
    ]
    return [*losses, weight]


def _terms() -> list[Listing]:
    return [
        Listing(
            name="kl",
            seam="term",
            summary=f"drift from the model before training ({', '.join(get_args(Kind))})",
            source="Schulman 2020, Approximating KL divergence",
            use="algorithm.kl_coeff=0.01",
            requires=tuple(sorted(KLPenalty(0.0).requires)),
            defaults={"kl_kind": "k3"},
        ),
        Listing(
            name="entropy_bonus",
            seam="term",
            summary="a policy that stops exploring",
            source="Williams and Peng 1991, Connection Science 3",
            use="algorithm.settings.grpo.entropy_coeff=0.001",
            requires=tuple(sorted(EntropyBonus(0.0).requires)),
            defaults={"settings.grpo.entropy_coeff": 0.0},
        ),
        Listing(
            name="smoothing",
            seam="term",
            summary=ALGORITHMS["epo"].summary,
            source=ALGORITHMS["epo"].source,
            use="algorithm.name=epo",
            requires=tuple(sorted(Smoothing(EntropyOptions(), EntropyTracker()).requires)),
            defaults=_settings("epo", EntropyOptions),
        ),
    ]
