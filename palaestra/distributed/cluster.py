"""The cluster: Ray is started or joined, and what it has room for."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from palaestra.config import PlaceConfig
from palaestra.errors import ConfigError, require


@contextmanager
def joined(address: str | None = None) -> Iterator[None]:
    """Be part of a Ray cluster inside the block; at its end everything that was started there is gone.

    Args:
        address: of the head, as `ray start` prints it (`host:6379`), or `auto` for the one of this machine. Without one
            a cluster of this machine alone is started, and stopped at the end.

    Raises:
        MissingExtraError: the extra `ray` is not installed.
        ConfigError: nothing answers at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", "ray")
    if ray.is_initialized():  # by whoever called, who also ends it
        yield
        return
    try:
        ray.init(address, include_dashboard=False if address is None else None, **_quiet())
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = str(error).strip().splitlines()[0]
        raise ConfigError(f"no Ray cluster answers at {address}: {told}; start one with ray start --head") from error
    try:
        yield
    finally:
        ray.shutdown()


def room(place: PlaceConfig) -> int:
    """How many processes that ask for `place` the living nodes can hold, if nothing else is on them."""
    return sum(_fits(demand_of(place), node["Resources"]) for node in _nodes())


def free_room(place: PlaceConfig, reserved: Sequence[PlaceConfig] = ()) -> int:
    """How many beside what is on them now, and what is `reserved` for processes that come first.

    What is free is known of all nodes together only: some may find no place while it is spread in small parts.
    """
    free = Counter(require("ray", "ray").available_resources())
    for other in reserved:
        free.subtract(demand_of(other))
    return min(room(place), _fits(demand_of(place), free)) if demand_of(place) else room(place)


def check_room(what: str, place: PlaceConfig) -> None:
    """Refuse what no node will ever hold.

    Raises:
        ConfigError: none does; the message says what there is.
    """
    if room(place) < 1:
        nodes = "; ".join(sorted({_told(node["Resources"]) for node in _nodes()})) or "none"
        raise ConfigError(
            f"no node of the cluster has {_told(demand_of(place))}, which {what} asks for; nodes have: {nodes}"
        )


def demand_of(place: PlaceConfig) -> dict[str, float]:
    """Ray's resources by name; those that are not asked for are left out."""
    return {name: n for name, n in {"CPU": place.cpus, "GPU": place.gpus, **place.resources}.items() if n}


def options_of(place: PlaceConfig) -> dict[str, Any]:
    """The same as options of a Ray actor."""
    return {"num_cpus": place.cpus, "num_gpus": place.gpus, "resources": dict(place.resources)}


def _fits(demand: Mapping[str, float], node: Mapping[str, float]) -> int:
    if not demand:
        return 1
    return min(math.floor(node.get(name, 0.0) / n + 1e-9) for name, n in demand.items())


def _nodes() -> list[dict[str, Any]]:
    nodes: Any = require("ray", "ray").nodes()
    return [node for node in nodes if node["Alive"]]


def _told(resources: Mapping[str, float]) -> str:
    shown = {k: v for k, v in resources.items() if not k.startswith("node:") and "memory" not in k}
    return ", ".join(f"{name} {n:g}" for name, n in sorted(shown.items())) or "nothing"


def _quiet() -> dict[str, Any]:
    """What processes on other nodes print stays in Ray's own log files."""
    return {"log_to_driver": False, "logging_level": logging.ERROR}
