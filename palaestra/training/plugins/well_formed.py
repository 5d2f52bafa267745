"""Dr.BoT's masks (Qin et al. 2025, arXiv 2509.22601): episodes that broke down teach nothing but noise.

    overlong     the context was full before the episode's end; optionally, the turn limit ended it
    incomplete   a turn without any action
    repetitive   some n-gram of n = 20 tokens occurs 10 times in one message
    unreadable   an action with characters that no text has

Their rows have no gradient, while their returns stay in the means of their groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.config import Config, NonNegative, Positive, Recipe
from palaestra.training.batch import Batch
from palaestra.training.plugin import Plugin
from palaestra.training.seams import Moment, Parts
from palaestra.trajectories.record import Trajectory


class Settings(Config, frozen=True, kw_only=True):
    """What breaks an episode."""

    overlong: bool = True
    """A full context."""
    truncated: bool = False
    """The turn limit, too, as for mathematics, where an answer is missing then. In tasks that end by success alone
    these are all failures, and nothing would ever be learned from one."""
    incomplete: bool = True
    """A turn with an empty action."""
    unreadable: bool = True
    """Replacement or control characters in an action."""
    repeats: NonNegative = 10
    """How often an n-gram may not occur in one message; 0 for any number."""
    ngram: Positive = 20
    """Its tokens."""


@dataclass(frozen=True, slots=True)
class WellFormed:
    """Keeps the rows of episodes that did not break down."""

    settings: Settings

    def __call__(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool."""
        assert batch.episodes is not None
        broken = [self.broken(each) for each in batch.episodes]
        return ~torch.tensor(broken, dtype=torch.bool)[batch.traj]

    def broken(self, episode: Trajectory) -> bool:
        """Whether an episode is one of the four."""
        options, actions = self.settings, [step.action for step in episode.steps]
        return (
            (options.overlong and episode.status == "overflow")
            or (options.truncated and any(step.truncated for step in episode.steps[-1:]))
            or (options.incomplete and not all(action.strip() for action in actions))
            or (options.unreadable and any(map(garbled, actions)))
            or (options.repeats > 0 and any(self._repetitive(node.ids) for node in episode.nodes if node.sampled))
        )

    def _repetitive(self, ids: Sequence[int]) -> bool:
        length, repeats = self.settings.ngram, self.settings.repeats
        if len(ids) < length + repeats - 1:
            return False
        found = Counter(tuple(ids[start : start + length]) for start in range(len(ids) - length + 1))
        return max(found.values()) >= repeats


def garbled(text: str) -> bool:
    """Whether a text has characters that come from broken encodings."""
    return any(char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in text)


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing if nothing breaks an episode."""
    flags = settings.overlong, settings.truncated, settings.incomplete, settings.unreadable, settings.repeats
    return Parts(filters=(WellFormed(settings),)) if any(flags) else Parts()


PLUGIN = Plugin(
    name="well_formed",
    summary="episodes that broke down (cut off, empty, repetitive, garbled) teach nothing but noise",
    source="Qin et al. 2025, arXiv 2509.22601",
    settings=Settings,
    build=build,
    neutral={"overlong": False, "incomplete": False, "unreadable": False, "repeats": 0},
)
