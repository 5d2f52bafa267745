"""How questions are played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from palaestra.envs.params import whole
from palaestra.errors import UnknownNameError

ACTIONS = ("message", "text")
REWARDS = ("exact", "f1", "aepo")


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the environment; a task's `params` may hold any of them, and come before those of `make`."""

    reward: str = "exact"
    """`exact`: 1 for an answer that equals a gold answer as SQuAD compares them, else 0 (Search-R1); `f1`: the best
    word F1; `aepo`: that F1, 0.1 more where both tools were used, -1 without any answer (AEPO, equation 10)."""
    action: str = "message"
    """`message`: tags or OpenAI tool calls; `text`: the first line, `search ...`, `read ...` or `answer ...`."""
    max_turns: int = 10
    """Turns after which the episode is cut off."""
    results: int = 5
    """Pages that a search shows, at most."""
    snippet: int = 120
    """Characters that a search shows of each."""
    part: int = 2000
    """Characters of a page that are read at once."""
    offer: int = 60
    """Most commands in `info["admissible_commands"]`; 0: no such list."""


_BOUNDS = {
    "max_turns": (1, 1000),
    "results": (1, 100),
    "snippet": (20, 20_000),
    "part": (100, 100_000),
    "offer": (0, 1000),
}
NAMES = tuple(field.name for field in fields(Options))


def read_options(params: Mapping[str, Any], default: Options) -> Options:
    """The options among `params`, and for the others those of `default`.

    Raises:
        DataError: a number out of bounds, or no number.
        UnknownNameError: no such reward or action style.
    """
    given: dict[str, Any] = {
        name: whole(params, name, "a search task", default=getattr(default, name), least=least, most=most)
        for name, (least, most) in _BOUNDS.items()
    }
    for name, known in (("reward", REWARDS), ("action", ACTIONS)):
        given[name] = params.get(name, getattr(default, name))
        if given[name] not in known:
            raise UnknownNameError(f"{name} of search", str(given[name])[:80], known)
    return Options(**given)
