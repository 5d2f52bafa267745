"""Per-token estimates of the divergence from a reference policy (Schulman's 2020 note)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Kind = Literal["k1", "k2", "k3", "abs"]
LOG_RATIO_LIMIT = 20.0
"""k3 clips `ref - logprob` to this on both sides before `exp`."""


def kl_estimate(logprob: Tensor, ref: Tensor, kind: Kind = "k3", *, value_clip: float | None = 10.0) -> Tensor:
    """One estimate per token, of the shape of `logprob`, with gradient to it.

    `k1 = logprob - ref`; `k2 = k1^2 / 2`; `k3 = exp(d) - d - 1` with `d = ref - logprob`; `abs = |k1|`. As values
    k1 and k3 are unbiased; as a loss only k2 has the right expected gradient, while k3 is what most code uses
    ("low_var_kl").

    Args:
        logprob: any shape, under the current policy.
        ref: the same shape, under the reference policy; a constant.
        kind: the estimator.
        value_clip: k3 is clipped to this on both sides, with gradient 0 beyond; `None` switches it off.
    """
    difference = logprob - ref.detach()
    match kind:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "abs":
            return difference.abs()
        case "k3":
            d = (-difference).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
            value = d.exp() - d - 1
            return value if value_clip is None else value.clamp(-value_clip, value_clip)
    raise ValueError(f"unknown KL estimator {kind!r}; known: k1, k2, k3, abs")
