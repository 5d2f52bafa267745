"""Data parallelism: every rank holds the whole batch and works on its share of the rows.

Denominators, advantages and choices are of the whole batch everywhere, so adding the ranks' gradients up gives that of
one process. Without an initialised process group there is one rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
MESSAGE = 2**24
"""Numbers that go into one message, if not a single tensor has more: copies of them are all that it takes of memory."""


def ranks() -> int:
    """How many processes work on one update."""
    return dist.get_world_size() if _running() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if _running() else 0


def share(rows: Tensor) -> Tensor:
    """This rank's part of `rows` [b]; the parts of all ranks are disjoint and cover them."""
    return rows[dist.get_rank() :: dist.get_world_size()] if _running() else rows


def most(number: int) -> int:
    """The largest of the ranks' numbers."""
    if not _running():
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def on_first(action: Callable[[], T], error: type[Exception] = RuntimeError) -> T:
    """What `action` returns on the first rank; the others wait for it, and get what it returned, or an `error`.

    Raises:
        Exception: what `action` raised, on the first rank.
    """
    if not _running():
        return action()
    if rank():
        found: list[Any] = [None]
        dist.broadcast_object_list(found)
        kind, value = found[0]
        if kind == "error":
            raise error(value)
        result: T = value
        return result
    try:
        done = action()
    except BaseException as raised:
        dist.broadcast_object_list([("error", str(raised))])
        raise
    dist.broadcast_object_list([("done", done)])
    return done


def exchanged(value: T) -> list[T]:
    """What each rank brought, by rank."""
    if not _running():
        return [value]
    found: list[Any] = [None] * ranks()
    dist.all_gather_object(found, value)
    return found


def wait() -> None:
    """Until all ranks are here."""
    if _running():
        dist.barrier()


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, which must bring the same shapes in the same order.

    Small tensors of one kind go together: a model has hundreds, and every message costs a round trip.
    """
    if not _running():
        return
    for alike in _messages(tensors):
        together = torch.cat([tensor.reshape(-1) for tensor in alike])
        if together.is_floating_point():  # 16-bit numbers are summed in float32
            together = together.to(torch.promote_types(together.dtype, torch.float32))
        dist.all_reduce(together)
        for tensor, summed in zip(alike, torch.split(together, [t.numel() for t in alike]), strict=True):
            tensor.copy_(summed.view_as(tensor))


def _messages(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, those of one kind that fit into a message together."""
    together: list[Tensor] = []
    for tensor in tensors:
        kind = {(t.dtype, t.device) for t in (*together, tensor)}
        if together and (len(kind) > 1 or sum(t.numel() for t in together) + tensor.numel() > MESSAGE):
            yield together
            together = []
        together.append(tensor)
    if together:
        yield together


def added_up(numbers: Mapping[str, float]) -> dict[str, float]:
    """Sums over the ranks by name; a rank need not have every name."""
    if not _running():
        return dict(numbers)
    found: list[Any] = [None] * ranks()
    dist.all_gather_object(found, dict(numbers))
    total: Counter[str] = Counter()
    for each in found:
        total.update(each)
    return dict(sorted(total.items()))


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()
