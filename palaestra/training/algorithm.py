"""An algorithm is a recipe: a named bundle of small plug-ins and their shared state; see `palaestra.training.seams`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from palaestra.errors import CheckpointError, ConfigError, TrainingError
from palaestra.training.advantage import Normalise, Singleton, Weighting, group_advantage
from palaestra.training.batch import Batch
from palaestra.training.branches import handed_on, shared_advantage
from palaestra.training.providers import Spectator
from palaestra.training.seams import Advantage, BoundTerm, Extra, Moment, Need, Needy, Parts, Recalling, Tokens


@dataclass(frozen=True, slots=True)
class GroupAdvantage:
    """Group-relative advantage of whole episodes, the same on all their tokens; see `group_advantage`."""

    normalise: Normalise = "std"
    weighting: Weighting = "trajectory"
    singleton: Singleton = "zero"

    def __call__(self, batch: Batch) -> Tensor:
        """[B, T] float32, 0 where not masked in."""
        per_row = group_advantage(
            batch.reward,
            batch.group,
            batch.traj,
            normalise=self.normalise,
            weighting=self.weighting,
            singleton=self.singleton,
        )
        return torch.where(batch.mask, per_row[:, None], 0.0).float()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What an iteration does with its episodes."""

    name: str
    parts: Parts
    """Of all plug-ins; the policy loss is the first of its terms."""
    advantage: Advantage = field(default_factory=GroupAdvantage)
    invalid_penalty: float = 0.0
    """Subtracted from the return for each refused action."""
    drop_uniform_groups: bool = False
    """Rows without advantage are not forwarded. Exact, because then no term has a gradient there."""

    @property
    def requires(self) -> frozenset[Need]:
        """The union over all plug-ins."""
        parts = self.parts
        credit: tuple[Needy, ...] = (*parts.shapers, *parts.gates, *parts.replays)
        needy: list[Needy] = [*parts.terms, *credit, *parts.providers, *parts.trackers.values()]
        scored: frozenset[Need] = frozenset({"scored"} if parts.gates or parts.statistics or parts.replays else ())
        return scored.union(*(plugin.requires for plugin in needy))

    def select(self, batch: Batch, moment: Moment) -> Batch:
        """What takes part in the update, with its rewards: the first thing done with an iteration.

        Raises:
            TrainingError: a reward is not finite.
        """
        if not bool(batch.reward.isfinite().all()):
            worst = int((~batch.reward.isfinite()).nonzero()[0])
            raise TrainingError(
                f"the reward of trajectory {int(batch.traj[worst])} is not finite ({float(batch.reward[worst])}): look "
                "at what its environment returned"
            )
        for keep in self.parts.filters:
            batch = batch.keeping(keep(batch, moment))
        batch = handed_on(batch)
        for shaper in self.parts.rewards:
            batch = batch.rewarded(shaper(batch, moment))
        return batch

    def prepare(self, batch: Batch, moment: Moment) -> Batch:
        """The batch with its advantages; all of its other columns are there."""
        shaped = selected = self._shaped(batch, batch.kept, moment)
        for keep in self.parts.selectors:
            selected = selected.keeping(keep(selected, moment))
            selected = selected.with_(advantage=_inside(selected, selected.advantage))
        if batch.copy_of is not None and not torch.equal(selected.trained, shaped.trained):
            moved = handed_on(selected.with_(notes=batch.notes)).with_(kept=batch.kept)
            selected = self._shaped(moved, selected.kept, moment).with_(kept=selected.kept)
            selected = selected.with_(advantage=_inside(selected, selected.advantage))
        if selected.kept is not None:
            notes = {**selected.notes, "kept_fraction": float(selected.kept.double().mean())}
            selected = selected.with_(notes=notes)
        return selected

    def _shaped(self, batch: Batch, through: Tensor | None, moment: Moment) -> Batch:
        """The batch with advantages as the shapers made them. Shared tokens have the mean of the rows in `through` [B]:
        what a selector leaves out is in the shapers' statistics, but not in a mean."""
        own = self.parts.own_credit
        advantage = self.advantage(batch) if own else shared_advantage(self.advantage, batch, through)
        if batch.kept is not None:
            advantage = _inside(batch, advantage)
        batch = batch.with_(advantage=advantage)
        for shaper in self.parts.shapers:
            shaped = shaper(batch, moment)
            advantage = _inside(batch, shaped.advantage.detach()).float()
            batch = batch.with_(advantage=advantage, notes={**batch.notes, **shaped.log})
        return batch

    def recalled(self, batch: Batch, moment: Moment) -> dict[str, Batch]:
        """The rows of earlier iterations that trackers want scored, by tracker."""
        asked = {name: t.recall(batch, moment) for name, t in self.parts.trackers.items() if isinstance(t, Recalling)}
        return {name: rows for name, rows in asked.items() if rows is not None}

    def bind(self, moment: Moment, batch: Batch) -> tuple[BoundTerm, ...]:
        """The terms of one iteration."""
        bound = (term.bind(moment, batch) for term in self.parts.terms)
        return distinct([term for term in bound if term is not None])

    def replayed(self, batch: Batch, moment: Moment, steps: int) -> list[list[Extra]]:
        """The further batches of each of the iteration's optimiser steps, and of those that they have to themselves."""
        brought = [replay(batch, moment, steps) for replay in self.parts.replays]
        total = max([steps, *map(len, brought)])
        return [
            [one for parts in brought for one in parts[step : step + 1] if one is not None] for step in range(total)
        ]

    def shape_tokens(self, tokens: Tokens) -> Tokens:
        """The tokens of one micro-batch as the terms see them."""
        for shaper in self.parts.token_shapers:
            tokens = shaper.on_tokens(tokens)
        return tokens

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Move every tracker, after the iteration's updates."""
        for tracker in self.parts.trackers.values():
            tracker.observe(batch, moment)

    def evaluated(self, iteration: int, success: float) -> None:
        """Tell those trackers of an evaluation that want to know."""
        for tracker in self.parts.trackers.values():
            if isinstance(tracker, Spectator):
                tracker.evaluated(iteration, success)

    def state_dict(self) -> dict[str, Any]:
        """State of all trackers, JSON values."""
        return {"name": self.name, "trackers": {name: t.state_dict() for name, t in self.parts.trackers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: it is the state of another algorithm.
        """
        if state.get("name") != self.name or set(state["trackers"]) != set(self.parts.trackers):
            raise CheckpointError(f"the checkpoint was made with algorithm {state.get('name')!r}, not {self.name!r}")
        for name, tracker in self.parts.trackers.items():
            tracker.load_state_dict(state["trackers"][name])


def joined(parts: Mapping[str, Parts]) -> Parts:
    """All of them as one; the keys are the plug-ins' names.

    Raises:
        ConfigError: two plug-ins fill a seam that holds one, or use the same name for a tracker.
    """
    found: dict[str, Any] = {}
    for field_ in Parts.__dataclass_fields__:
        given = {name: getattr(each, field_) for name, each in parts.items() if getattr(each, field_)}
        values = list(given.values())
        if values and isinstance(values[0], tuple):
            found[field_] = tuple(one for value in values for one in value)
        elif values and isinstance(values[0], Mapping):
            found[field_] = _merged(given)
        elif len(values) > 1 and values[0] is not True:
            raise ConfigError(
                f"algorithm.plugins: {' and '.join(given)} each bring their own {field_}; keep one of them"
            )
        elif values:
            found[field_] = values[0]
    return Parts(**found)


def distinct(terms: Sequence[BoundTerm]) -> tuple[BoundTerm, ...]:
    """The terms with names of their own, which metrics and weights go by: `kl`, and `kl_2` where there is another."""
    named: Counter[str] = Counter()
    found = []
    for term in terms:
        named[term.name] += 1
        place = named[term.name]
        found.append(term if place == 1 else replace(term, name=f"{term.name}_{place}"))
    return tuple(found)


def _merged(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, value in given.items():
        if twice := merged.keys() & value.keys():
            raise ConfigError(f"algorithm.plugins: {name} and another plug-in both call a tracker {min(twice)!r}")
        merged |= value
    return merged


def _inside(batch: Batch, advantage: Tensor | None) -> Tensor:
    assert advantage is not None
    return torch.where(batch.trained, advantage, 0.0)
