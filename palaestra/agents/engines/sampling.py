"""Sampling from logits by the inverse cumulative distribution, with log-prob and exact entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from palaestra.agents.engines.base import Cut

Columns = tuple[list[float], list[float], list[Cut | None]]
"""Temperature, uniform draw and cut of each row."""
_BLOCKED = -1e300  # finite, so that p * z is 0 and not NaN where p is 0


class Sampled(NamedTuple):
    """One token per row."""

    ids: list[int]
    logprobs: list[float]
    """Nats."""
    entropies: list[float]
    """Nats."""


def uniforms(seed: int, n: int) -> list[float]:
    """`n` draws from [0, 1) of the request's own counter-based generator (Philox; Salmon et al. 2011)."""
    draws: list[float] = np.random.Generator(np.random.Philox(key=seed % 2**128)).random(n).tolist()
    return draws


def sample(
    logits: Tensor,
    temperature: Sequence[float],
    uniform: Sequence[float],
    allowed: Sequence[list[int] | None],
    cuts: Sequence[Cut | None] = (),
) -> Sampled:
    """Sample one token per row; a row's result does not depend on the other rows.

    Args:
        logits: [R, V].
        temperature: Per row; 0 takes the likeliest token, with log-prob and entropy of temperature 1.
        uniform: Per row, in [0, 1).
        allowed: Per row, the sorted ids to choose from, or `None` for all.
        cuts: Per row, the likeliest tokens that may be drawn, or `None` for all; empty for no cut in any row. Log-probs
            and entropies are those without it.
    """
    cuts = cuts or [None] * len(allowed)
    free = [row for row, ids in enumerate(allowed) if ids is None]
    bound = [row for row, ids in enumerate(allowed) if ids is not None]
    if not bound:
        return _sample(logits.double(), temperature, uniform, cuts)
    result = Sampled([0] * len(allowed), [0.0] * len(allowed), [0.0] * len(allowed))
    if free:
        part = _sample(logits[free].double(), *_of(free, temperature, uniform, cuts))
        _put(result, free, part)
    table, inside = _table([allowed[r] or [] for r in bound], logits.device)
    narrow = logits[bound].gather(1, table).double().masked_fill(~inside, _BLOCKED)
    part = _sample(narrow, *_of(bound, temperature, uniform, cuts))
    ids = [(allowed[r] or [])[k] for r, k in zip(bound, part.ids, strict=True)]
    _put(result, bound, part._replace(ids=ids))
    return result


def _of(rows: list[int], temperature: Sequence[float], uniform: Sequence[float], cuts: Sequence[Cut | None]) -> Columns:
    return [temperature[r] for r in rows], [uniform[r] for r in rows], [cuts[r] for r in rows]


def _put(result: Sampled, rows: list[int], part: Sampled) -> None:
    for k, row in enumerate(rows):
        result.ids[row], result.logprobs[row] = part.ids[k], part.logprobs[k]
        result.entropies[row] = part.entropies[k]


def _table(allowed: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """The ragged lists as [R, K] ids (0 in the padding) and [R, K] bool (false in the padding)."""
    width = max(map(len, allowed))
    table = torch.tensor([ids + [0] * (width - len(ids)) for ids in allowed], device=device)
    size = torch.tensor([len(ids) for ids in allowed], device=device)
    return table, torch.arange(width, device=device) < size[:, None]


def _sample(
    logits: Tensor, temperature: Sequence[float], uniform: Sequence[float], cuts: Sequence[Cut | None]
) -> Sampled:
    """`logits`: [R, K] float64."""
    if any(t not in (0.0, 1.0) for t in temperature):
        logits = logits / logits.new_tensor([t or 1.0 for t in temperature])[:, None]
    z = (logits - logits.amax(-1, keepdim=True)).clamp_(min=_BLOCKED)
    e = z.exp()
    cumulative = e.cumsum(-1)
    total = cumulative[:, -1:]
    pool = torch.where(kept(e, cuts), e, 0).cumsum(-1) if any(cuts) else cumulative
    end = pool[:, -1:]
    u = logits.new_tensor(uniform)[:, None]
    # A draw stays below the end even after rounding, so an impossible token is never the first one above it.
    draw = torch.minimum(u * end, torch.nextafter(end, torch.zeros_like(end)))
    ids = torch.searchsorted(pool, draw, right=True).clamp(max=z.shape[-1] - 1)
    if 0.0 in temperature:
        greedy = torch.tensor([t == 0 for t in temperature], device=z.device)[:, None]
        ids = torch.where(greedy, z.argmax(-1, keepdim=True), ids)
    log_total = total.log()
    logprob = (z.gather(1, ids) - log_total)[:, 0]
    entropy = log_total[:, 0] - (e * z).sum(-1) / total[:, 0]
    return Sampled(ids[:, 0].tolist(), logprob.tolist(), entropy.clamp(min=0).tolist())


def kept(e: Tensor, cuts: Sequence[Cut | None]) -> Tensor:
    """[R, K] bool: which of the weights `e` [R, K] may be drawn; all in rows without a cut."""
    width = e.shape[-1]
    k = torch.tensor([cut.top_k or width if cut else width for cut in cuts], device=e.device)[:, None]
    share = e.new_tensor([cut.top_p if cut and cut.top_p < 1 else math.inf for cut in cuts])[:, None]
    ordered, order = e.sort(dim=-1, descending=True, stable=True)
    among = torch.arange(width, device=e.device) < k
    ordered = torch.where(among, ordered, 0)
    before = ordered.cumsum(-1) - ordered
    inside = among & (before < share * ordered.sum(-1, keepdim=True))
    return torch.zeros_like(inside).scatter_(-1, order, inside)
