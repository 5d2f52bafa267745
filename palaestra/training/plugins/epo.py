"""EPO: entropy-regularised policy optimisation (Xu et al., arXiv 2509.22576), on GRPO's advantage.

    loss = L_GRPO - entropy_coeff * (L_H - beta_k * L_smooth)

`L_H` is the policy's token entropy averaged within turns, over turns, and over trajectories, so that every episode
has the same weight whatever its length. `L_smooth` averages in the same way `slope * distance` of each token's entropy
from a corridor around the mean entropy of all earlier iterations; `beta_k` falls from 2 to 1 over training. Both act on
every episode, also in groups without advantage. In the first iteration there is no history and so no smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from palaestra.config import Recipe
from palaestra.training.batch import Batch
from palaestra.training.entropy import Corridor, EntropyOptions, corridor_penalty, phase_weight
from palaestra.training.entropy_tracker import EntropyTracker, measure
from palaestra.training.plugin import Plugin
from palaestra.training.seams import BoundTerm, Moment, Need, Parts, Term, Tokens, Values
from palaestra.training.terms import EntropyBonus, constant_of

Settings = EntropyOptions


@dataclass(frozen=True, slots=True)
class Smoothing:
    """`+ entropy_coeff * beta_k * L_smooth`: pulls token entropies back towards the corridor."""

    options: EntropyOptions
    tracker: EntropyTracker
    constant: float | None = None
    needs_all: bool = True

    @property
    def requires(self) -> frozenset[Need]:
        """A reference that counts the running iteration needs its entropies before the first update."""
        return frozenset({"entropy_grad", "scored"} if self.options.include_current else {"entropy_grad"})

    def bind(self, moment: Moment, batch: Batch) -> BoundTerm | None:
        """Fix corridor and phase weight; `None` while there is no history."""
        options = self.options
        current = measure(batch) if options.include_current else None
        reference = self.tracker.history.reference(options.reference, current=current)
        if reference is None:
            return None
        corridor = Corridor.around(reference, options.low_ratio, options.high_ratio)
        total = options.iterations or moment.total
        beta = phase_weight(moment.iteration, total, options.decay, options.schedule)
        return BoundTerm(
            name="smoothing",
            coefficient=options.entropy_coeff * beta,
            aggregation=options.aggregation,
            constant=self.constant,
            value=lambda tokens: smoothing_values(tokens, corridor, options),
            log={
                "h_ref": _mean(reference),
                "corridor_low": _mean(corridor.low),
                "corridor_high": _mean(corridor.high),
                "beta": beta,
            },
        )


def smoothing_values(tokens: Tokens, corridor: Corridor, options: EntropyOptions) -> Values:
    """`slope * penalty` of each token, [P] float64, with gradient to its entropy unless the penalty is the indicator.

    Logs which tokens lie below and above the corridor.
    """
    low, high = corridor.on_tokens(tokens.step_id[None])
    entropy = tokens.entropy.double()[None]
    penalty = options.slope * corridor_penalty(entropy, low, high, options.penalty)
    if options.late_turn_gate is not None:
        penalty = penalty * (tokens.step_id >= options.late_turn_gate)
    fixed = entropy.detach()
    return Values(penalty[0], {"frac_below": (fixed < low)[0], "frac_above": (fixed > high)[0]})


def _mean(value: Tensor) -> float | None:
    """One number for the log; over the turns that have one."""
    known = value[value.isfinite()]
    return float(known.mean()) if known.numel() else None


def build(settings: EntropyOptions, recipe: Recipe) -> Parts:
    """Bonus and smoothing; nothing with `entropy_coeff` 0."""
    if settings.entropy_coeff == 0:
        return Parts()
    tracker, constant = EntropyTracker(), constant_of(recipe, settings.aggregation)
    terms: tuple[Term, ...] = (EntropyBonus(settings.entropy_coeff, settings.aggregation, constant),)
    if settings.smoothing:
        terms = (*terms, Smoothing(settings, tracker, constant))
    return Parts(terms=terms, trackers={"entropy": tracker})


PLUGIN = Plugin(
    name="epo",
    summary="entropy that rises without bound early in long episodes, or collapses",
    source="Xu et al. 2025, arXiv 2509.22576",
    settings=EntropyOptions,
    build=build,
    neutral={"entropy_coeff": 0.0},
)
