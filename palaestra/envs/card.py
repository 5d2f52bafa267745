"""What a person wants to know of a suite before playing it: `palaestra envs` lists it, importing nothing that plays."""

from __future__ import annotations

from typing import Literal

import msgspec

Grade = Literal["exact", "seeded", "noisy"]


class SuiteCard(msgspec.Struct, frozen=True, kw_only=True):
    """One suite in brief. Tests hold it to what the suite does."""

    name: str
    """As in `load_suite("NAME/LEVEL:SPLIT")`."""
    summary: str
    """What the agent does, in a line."""
    env: str
    """Id of the environment that plays its tasks."""
    levels: tuple[str, ...] = ()
    """What may stand for LEVEL, the default first; empty where there are none, or where they depend on data."""
    splits: dict[str, int | None]
    """Split -> tasks of the default level; `None` where that depends on data of the user's."""
    determinism: Grade = "exact"
    """What `palaestra check` grades it."""
    oracle: bool
    """Whether an expert solves the tasks."""
    rewards: str
    """Shape and range of the episode's reward, as its paper defines it."""
    progress: bool = False
    """Whether the score can fall or comes in parts, so that the reward `progress` makes a difference."""
    admissible: bool
    """Whether every turn lists the admissible commands."""
    action: Literal["text", "choice", "message"] = "text"
    """Action format that suits it."""
    max_turns: int
    """Usual limit of an episode, in turns."""
    extra: str = ""
    """The extra that it needs; empty for none."""
    needs: str = ""
    """What else it needs, in words: Java, a data set."""
    licence: str
    """Of the code and data that are played, where they are not ours: theirs."""
    source: str
    """Paper or repository."""
    page: str
    """Its page below `docs/`."""
