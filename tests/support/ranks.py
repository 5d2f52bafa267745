"""Several processes that work on one update, over gloo on this machine."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

DEADLINE = 500.0
"""Seconds until a gang that hangs is ended."""


def in_ranks(function: Callable[..., Any], arguments: Sequence[Any], folder: Path, world: int = 2) -> list[Any]:
    """What `function(*arguments)` returns in each of `world` processes of one group.

    Args:
        function: of a module that can be imported; called with the group initialised.
        arguments: can be pickled.
        folder: empty; for the meeting point and the results.
        world: how many.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(function, arguments, str(folder), rank, world), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + DEADLINE
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    said = [path.read_text() for path in sorted(folder.glob("*.error"))]
    assert not said, "\n".join(said)
    assert not hung, f"{len(hung)} of {world} processes hang"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _work(function: Callable[..., Any], arguments: Sequence[Any], folder: str, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    try:
        torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    except BaseException:
        (Path(folder) / f"{rank}.error").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
