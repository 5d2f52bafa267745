"""HPT (arXiv 2509.04419): learn from rewards where there are some, from a demonstration where there are none.

successes of a group <= gamma:  its episodes are dropped, and L += weight * mean over a demonstration's tokens of -lp
otherwise:                      the base, which the algorithm `hpt` sets to GRPO without standard deviation and clip
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from palaestra.config import Config, NonNegativeFloat, Recipe
from palaestra.training.batch import Batch
from palaestra.training.demonstrations import Demonstrations
from palaestra.training.plugin import Plugin
from palaestra.training.rows import TRAINABLE, build_rows
from palaestra.training.seams import NOTHING, BoundTerm, Extra, Moment, Need, Parts, Shaped, Values
from palaestra.trajectories.record import Trajectory


class Settings(Config, frozen=True, kw_only=True):
    """When to imitate, whom, and how strongly."""

    gamma: Annotated[int, msgspec.Meta(ge=-1)] = 0
    """Successes up to which a group's task is imitated; -1 never does, the group size always does."""
    weight: NonNegativeFloat = 1.0
    """Of the imitation; 0.3 in the paper for a model of 1.5 billion parameters."""
    demonstrations: str = ""
    """A `.ptj` file of solved episodes; tasks that it does not hold ask their environment's oracle."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "traj-turn-token"] = "token-mean"
    """How the demonstrations' tokens become one number."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Fetches demonstrations, drops the groups that have one instead, and brings them to the optimiser steps."""

    settings: Settings
    demonstrations: Demonstrations
    epochs: int = 1
    requires: frozenset[Need] = NOTHING

    async def fetch(self, trajectories: Sequence[Trajectory], moment: Moment) -> None:
        """The demonstrations that this iteration needs."""
        groups: dict[str, list[Trajectory]] = {}
        for each in trajectories:
            groups.setdefault(each.group or each.id, []).append(each)
        played = [g for g in groups.values() if any(t.status in TRAINABLE and t.sampled_tokens for t in g)]
        await self.demonstrations.fetch(g[0] for g in played if sum(t.success for t in g) <= self.settings.gamma)

    def chosen(self, batch: Batch) -> dict[int, Trajectory]:
        """The demonstration of each group that is to imitate one."""
        successes: dict[int, int] = {}
        found: dict[int, Trajectory] = {}
        pairs = set(zip(batch.group.tolist(), batch.traj.tolist(), strict=True))
        for group, index in sorted(pairs) if batch.episodes else []:
            assert batch.episodes is not None
            successes[group] = successes.get(group, 0) + batch.episodes[index].success
            if demonstration := self.demonstrations.of(batch.episodes[index]):
                found[group] = demonstration
        return {group: found[group] for group in sorted(found) if successes[group] <= self.settings.gamma}

    def keep(self, batch: Batch, moment: Moment) -> Tensor:
        """[B] bool: rows of the other groups."""
        return ~torch.isin(batch.group, torch.tensor([*self.chosen(batch)], dtype=torch.int64))

    def __call__(self, batch: Batch, moment: Moment, steps: int) -> Sequence[Extra]:
        """Each demonstration once in each epoch, shared out over its steps."""
        chosen, share = [*self.chosen(batch).values()], max(1, steps // self.epochs)
        parts = [self._extra(chosen[step % share :: share], batch) for step in range(max(1, steps))]
        return parts if self.settings.weight else []

    def _extra(self, trajectories: Sequence[Trajectory], batch: Batch) -> Extra:
        rows = build_rows(trajectories, temperature=batch.temperature).batch
        zero = torch.zeros(rows.shape)
        rows = rows.with_(advantage=zero, old_logprob=zero, old_entropy=zero)
        term = BoundTerm("sft", self.settings.weight, self.settings.aggregation, lambda at: Values(-at.logprob))
        return Extra("demonstration", rows, (term,))


@dataclass(frozen=True, slots=True)
class Share:
    """Changes nothing: it logs which share of the groups imitates."""

    switch: Switch
    requires: frozenset[Need] = NOTHING

    def __call__(self, batch: Batch, moment: Moment) -> Shaped:
        """`imitated_groups`."""
        assert batch.advantage is not None
        share = len(self.switch.chosen(batch)) / max(1, len(set(batch.group.tolist())))
        return Shaped(batch.advantage, {"imitated_groups": share})


def build(settings: Settings, recipe: Recipe) -> Parts:
    """Nothing with `gamma` -1."""
    if settings.gamma < 0:
        return Parts()
    demonstrations = Demonstrations(settings.demonstrations, "algorithm.settings.hpt.demonstrations")
    switch = Switch(settings, demonstrations, recipe.learner.epochs)
    fetching = Parts(suppliers=(switch,), attachments=(demonstrations,))
    return replace(fetching, filters=(switch.keep,), shapers=(Share(switch),), replays=(switch,))


PLUGIN = Plugin(
    name="hpt",
    summary="tasks that are never solved give no reward to learn from, and imitation alone forgets how to explore",
    source="HPT 2025, arXiv 2509.04419",
    settings=Settings,
    build=build,
    neutral={"gamma": -1},
    groups=True,
)
