"""Dynamic sampling (Yu et al., arXiv 2503.14476, DAPO): groups are played until enough of them have a signal.

    keep group g  iff  its rewards are not all equal;   while fewer than `groups` are kept: play that many more, at most
    `rounds` rounds an iteration

What the cap leaves unfilled is a smaller update: `rounds` and `groups_missing` in the metrics say so. Every discarded
group was played in full; where episodes are slow, a tracker that foresees them (`knapsack`, `spo_tracker`) costs less.
"""

from __future__ import annotations

from dataclasses import dataclass

from palaestra.config import Config, NonNegative, Recipe
from palaestra.training.batch import Batch
from palaestra.training.numbering import number
from palaestra.training.plugin import Plugin
from palaestra.training.plugins.uniform_groups import UniformGroups
from palaestra.training.seams import Filter, Moment, Parts


class Settings(Config, frozen=True, kw_only=True):
    """How long to go on."""

    rounds: NonNegative = 3
    """Most rounds of an iteration; 1 only leaves out the groups without a signal (`uniform_groups`), 0 not even that.
    DAPO's script has 10."""


@dataclass(frozen=True, slots=True)
class UntilFull:
    """Asks for as many groups as are missing."""

    groups: int
    """With a signal, that an update should have."""
    rounds: int
    mixed: Filter

    def missing(self, batch: Batch, moment: Moment) -> int:
        """0 when there are enough."""
        kept = number(batch.group[self.mixed(batch, moment)]).known
        return max(0, self.groups - len(kept))


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Filter and refill."""
    if settings.rounds == 0:
        return Parts()
    mixed = UniformGroups()
    refill = UntilFull(recipe.rollout.groups, settings.rounds, mixed)
    return Parts(filters=(mixed,), refill=refill if settings.rounds > 1 else None)


PLUGIN = Plugin(
    name="dynamic_sampling",
    summary="groups that say nothing make updates small and uneven: others are played in their place",
    source="Yu et al. 2025, arXiv 2503.14476",
    settings=Settings,
    build=build,
    neutral={"rounds": 0},
    groups=True,
)
