"""How software-engineering tasks are played."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from palaestra.envs.params import whole
from palaestra.errors import DataError, UnknownNameError

REWARDS = ("solved", "partial")
BACKENDS = ("bubblewrap", "docker", "remote")


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the environment; a task's `params` may hold any of them, and come before those of `make`."""

    backend: str = "bubblewrap"
    """What the sandboxes run on: `bubblewrap`, `docker` or `remote`."""
    reward: str = "solved"
    """`solved`: 1 for a solved task, else 0; `partial`: the share of the tests that have to begin to pass and do, as
    long as all that passed before still pass, else 0; of Harbor's tasks the number that their tests write, up to 1."""
    max_turns: int = 50
    """Turns after which the episode is cut off, and what there is then is judged."""
    observation: int = 8000
    """Characters that are shown of one call; about a quarter of it in tokens."""
    build: bool = False
    """Whether the image of a task that comes with a Dockerfile is made where the engine has none: its commands are then
    run, as root and with a network."""
    seconds: float = 60.0
    """That one command of the agent's may take."""


_BOUNDS = {"max_turns": (1, 10_000), "observation": (500, 1_000_000)}
NAMES = tuple(field.name for field in fields(Options))


def read_options(params: Mapping[str, Any], default: Options) -> Options:
    """The options among `params`, and for the others those of `default`.

    Raises:
        DataError: a number out of bounds, or no number.
        UnknownNameError: no such reward or back end.
    """
    given: dict[str, Any] = {
        name: whole(params, name, "a software-engineering task", default=getattr(default, name), least=least, most=most)
        for name, (least, most) in _BOUNDS.items()
    }
    for name, known in (("reward", REWARDS), ("backend", BACKENDS)):
        given[name] = params.get(name, getattr(default, name))
        if given[name] not in known:
            raise UnknownNameError(f"{name} of software engineering", str(given[name])[:80], known)
    seconds = params.get("seconds", default.seconds)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise DataError(f"seconds of a software-engineering task is a number above 0, not {str(seconds)[:80]!r}")
    build = params.get("build", default.build)
    if not isinstance(build, bool):
        raise DataError(f"build of a software-engineering task is true or false, not {str(build)[:80]!r}")
    return Options(**given, build=build, seconds=float(seconds))
