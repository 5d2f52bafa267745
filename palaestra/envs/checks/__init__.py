"""The checks that `check_env` runs: each is one promise of the contract in `core.py`, as a coroutine.

A check returns if the promise is kept (what it found, where that is worth showing), raises `Broken` with the mend if
not, `Odd` where a person should look, and `Skipped` where the environment does not offer what it looks at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaestra.envs.checks import baselines, concurrency, ends, experts, forks, order, randomness, resources, shape
from palaestra.envs.checks.probe import Probe

CheckFunction = Callable[[Probe], Awaitable[str | None]]

GATES: dict[str, CheckFunction] = {"make": shape.making, "reset": shape.resetting, "step": shape.stepping}
"""What everything else needs."""

CHECKS: dict[str, CheckFunction] = {
    **GATES,
    "observations are text": shape.observing,
    "rewards are finite floats": shape.rewarding,
    "flags are bools": ends.flagging,
    "infos are dicts": shape.informing,
    "admissible commands": shape.admitting,
    "nothing returned changes": shape.freshness,
    "limits truncate": ends.limiting,
    "flags agree with success": ends.agreeing,
    "seed": randomness.seeding,
    "same when repeated": randomness.repeating,
    "same in another process": randomness.repeating_elsewhere,
    "global generators untouched": randomness.minding_globals,
    "order of calls": order.ordering,
    "nonsense is answered": order.answering,
    "close": order.closing,
    "close releases everything": resources.releasing,
    "instances side by side": concurrency.side_by_side,
    "snapshot": forks.snapshotting,
    "fork": forks.forking,
    "oracle solves": experts.advising,
    "oracle changes nothing": experts.advising_purely,
    "random agent": baselines.random_agent,
    "empty agent": baselines.empty_agent,
    "nonsense agent": baselines.nonsense_agent,
    "tools": shape.offering_tools,
    "render": shape.rendering,
    "spec": shape.serialising,
}
