"""What is done with a tile of logits, as functions that torch compiles into one kernel each.

On a CPU `palaestra.training.logprob` works in place, in buffers that stay in its caches. On a GPU a tile is read from
memory once per operation, so that fusing is what counts: these functions read it once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


def fold(z: Tensor, top: Tensor, total: Tensor, moment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Running maximum m, sum exp(z - m) and sum exp(z - m) (z - m) of rows, [c] each, with a tile [c, v] more."""
    new_top = torch.maximum(top, z.amax(1))
    shift = top - new_top
    decay = shift.exp()
    moved = z - new_top[:, None]
    powers = moved.exp()
    return new_top, total * decay + powers.sum(1), (moment + total * shift) * decay + (powers * moved).sum(1)


def slope(z: Tensor, lse: Tensor, moment: Tensor, constant: Tensor) -> Tensor:
    """[c, v]: p (moment log p + constant), for p = exp(z - lse) and one number of each of the others a row."""
    logp = z - lse[:, None]
    return logp.exp() * (logp * moment[:, None] + constant[:, None])


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled once for all shapes."""
    made: Callable[..., Any] = torch.compile(function, dynamic=True)
    return made


def product(a: Tensor, b: Tensor) -> Tensor:
    """[c, v] in at least float32, of [c, D] and [D, v]; 16-bit inputs are multiplied as such and summed in float32."""
    if a.dtype in (torch.bfloat16, torch.float16) and a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b).to(torch.promote_types(a.dtype, torch.float32))
