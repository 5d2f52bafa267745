"""Every algorithm and plug-in with its source, what it requires and its defaults: what `palaestra algorithms` lists."""

from __future__ import annotations

from typing import Any, get_args

from palaestra.config import PRESETS, AlgorithmConfig, Config, Recipe, TasksConfig, to_dict
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, AlgorithmEntry, build_algorithm
from palaestra.training.kl import Kind
from palaestra.training.plugin import Plugin
from palaestra.training.plugins import PLUGINS
from palaestra.training.policy_loss import POLICY_LOSSES, Bounds, PolicyLoss
from palaestra.training.terms import EntropyBonus, KLPenalty

INTERNAL = ("tracker", "statistic", "attachment", "own credit")
"""Fields of `Parts` that say how a plug-in works rather than where it acts."""


class Listing(Config, frozen=True, kw_only=True):
    """One line of the catalogue."""

    name: str
    """As recipes name it."""
    seam: str
    """`algorithm` for a whole recipe of plug-ins, `plug-in`, or the part of the base that it is."""
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
    fills: tuple[str, ...] = ()
    """The seams of a plug-in, with its default settings; see `palaestra.training.seams`."""


def catalogue() -> list[Listing]:
    """All of them: algorithms first, then what they are made of."""
    return [
        *(_algorithm(name, entry) for name, entry in sorted(ALGORITHMS.items())),
        *(_plugin(plugin) for _, plugin in sorted(PLUGINS.items())),
        *_advantages(),
        *_policy_losses(),
        *_terms(),
    ]


def _algorithm(name: str, entry: AlgorithmEntry) -> Listing:
    config = AlgorithmConfig(name=name)
    settings = [_settings(PLUGINS[plugin]) for plugin in config.plugins]
    return Listing(
        name=name,
        seam="algorithm",
        summary=entry.summary,
        source=entry.source,
        use=f"algorithm.name={name}",
        requires=tuple(sorted(build_algorithm(_recipe(config)).requires)),
        defaults={**PRESETS.get(name, {}), **{key: value for each in settings for key, value in each.items()}},
    )


def _plugin(plugin: Plugin) -> Listing:
    parts = plugin.build(plugin.settings(), _recipe(AlgorithmConfig()))
    seams = [name.rstrip("s").replace("_", " ") for name in parts.__dataclass_fields__ if getattr(parts, name)]
    return Listing(
        name=plugin.name,
        seam="plug-in",
        summary=plugin.summary,
        source=plugin.source,
        use=f"algorithm.plugins=[{plugin.name}]",
        requires=tuple(sorted(Algorithm("", parts).requires)),
        defaults=_settings(plugin),
        fills=tuple(seam for seam in seams if seam not in INTERNAL),
    )


def _recipe(config: AlgorithmConfig) -> Recipe:
    return Recipe(name=config.name, tasks=TasksConfig(train=""), algorithm=config)


def _settings(plugin: Plugin) -> dict[str, Any]:
    return {f"settings.{plugin.name}.{key}": value for key, value in to_dict(plugin.settings()).items()}


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
    return [
        Listing(name=name, seam="advantage", summary=summary, source=source, use=f"algorithm.normalise={name}")
        for name, summary, source in group
    ]


def _policy_losses() -> list[Listing]:
    bounds, needs = Bounds(), tuple(sorted(PolicyLoss().requires))
    defaults = {"clip_low": bounds.clip_low, "clip_high": bounds.clip_high, "dual_clip": bounds.dual_clip}
    return [
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
            use="algorithm.entropy_coeff=0.001",
            requires=tuple(sorted(EntropyBonus(0.0).requires)),
            defaults={"entropy_coeff": 0.0},
        ),
    ]
