"""EPO's terms of a padded batch, by the function that the learner's plug-in calls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.training.aggregate import weighted_sum
from palaestra.training.entropy import Corridor, EntropyOptions
from palaestra.training.plugins.epo import smoothing_values
from palaestra.training.seams import Tokens


@dataclass(frozen=True)
class EntropyTerms:
    """The terms of one (micro-)batch. All add up over micro-batches that share their weights."""

    bonus: Tensor
    smoothing: Tensor
    """With the slope, without beta."""
    loss: Tensor
    """`-entropy_coeff * (bonus - beta * smoothing)`."""
    below: int
    """Tokens whose entropy lies below the corridor."""
    above: int
    tokens: int


def epo_terms(
    entropy: Tensor,
    mask: Tensor,
    step_id: Tensor,
    weights: Tensor,
    *,
    reference: Tensor | None,
    beta: float,
    options: EntropyOptions,
) -> EntropyTerms:
    """Bonus, smoothing and their loss; `weights` are those of the whole mini-batch, `reference` the history's."""
    inside = mask.bool()
    chosen = entropy[inside]
    tokens = Tokens(chosen, chosen, chosen, chosen, chosen, step_id[inside])

    def summed(values: Tensor) -> Tensor:
        return weighted_sum(
            torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(inside, values), inside, weights
        )

    bonus = summed(chosen.double())
    if reference is None or not options.smoothing:
        return EntropyTerms(bonus, torch.zeros_like(bonus), -options.entropy_coeff * bonus, 0, 0, int(inside.sum()))
    corridor = Corridor.around(reference, options.low_ratio, options.high_ratio)
    values = smoothing_values(tokens, corridor, options)
    smoothing = summed(values.value)
    return EntropyTerms(
        bonus,
        smoothing,
        -options.entropy_coeff * (bonus - beta * smoothing),
        below=int(values.diagnostics["frac_below"].sum()),
        above=int(values.diagnostics["frac_above"].sum()),
        tokens=int(inside.sum()),
    )
