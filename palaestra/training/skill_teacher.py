"""The policy as its own teacher: what it says of its actions, had it read a skill first (Skill-SD)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from palaestra.training.batch import Batch
from palaestra.training.preface import moved_back, prefaced
from palaestra.training.providers import Run, Score
from palaestra.training.seams import NOTHING, Moment, Need
from palaestra.training.skills import SkillBank, Summarise, best
from palaestra.trajectories.record import Trajectory

TEACHER, ON = "skill_teacher", "skill_on"
"""Columns: log-probs of the taken tokens after the skill, and 1 on the tokens that have some."""


@dataclass(slots=True)
class SkillTeacher:
    """Provider of the teacher's log-probs, and tracker of its skills."""

    by: Literal["kind", "task"]
    bank: SkillBank
    summarise: Summarise
    encode: Callable[[str], list[int]] | None = None
    """A text as a message; without a run there is none, and no skill is read."""
    longest: int = 0
    """Tokens that the model can read at once."""
    requires: frozenset[Need] = field(default=NOTHING, init=False)

    def check(self) -> None:
        """Nothing to look for."""

    def attach(self, run: Run) -> None:
        """Learn to write messages."""
        self.encode = run.chat.user
        self.longest = int(getattr(run.loaded.model.config.get_text_config(), "max_position_embeddings", 0) or 2**30)

    def __call__(self, batch: Batch, moment: Moment, score: Score) -> Mapping[str, Tensor]:
        """`TEACHER` and `ON`."""
        texts, encode = self.chosen(batch), self.encode
        tokens = [encode(texts[g]) if encode and texts.get(g) else [] for g in batch.group.tolist()]
        short = [t if len(t) + int(n) <= self.longest else [] for t, n in zip(tokens, batch.length, strict=True)]
        on = torch.tensor([bool(text) for text in short], dtype=torch.bool)[:, None] & batch.trained
        if not bool(on.any()):
            return {TEACHER: torch.zeros(batch.shape), ON: torch.zeros(batch.shape)}
        longer, shift = prefaced(batch, short, [_opening(batch, row) for row in range(len(short))])
        said = moved_back(score(longer, None, on.any(1).nonzero()[:, 0]), shift, batch.shape[1])
        return {TEACHER: torch.where(on, said, 0.0), ON: on.float()}

    def chosen(self, batch: Batch) -> dict[int, str]:
        """The text of each group that has one. By the groups' names, as each choice counts for the next."""
        taken: dict[str, dict[int, int]] = {}
        found: dict[int, str] = {}
        for _, group, kind in sorted({(t.group or t.id, g, self._key(t)) for g, t in _members(batch)}):
            if (place := self.bank.choose(kind, taken.get(kind))) is not None:
                counts = taken.setdefault(kind, {})
                counts[place] = counts.get(place, 0) + 1
                found[group] = self.bank.skills[kind][place].text
        return found

    def observe(self, batch: Batch, moment: Moment) -> None:
        """Credit the skills that were read, and learn a new one from the best episode of each kind."""
        members = _members(batch)
        for group, text in self.chosen(batch).items() if self.encode else ():
            own = [t for g, t in members if g == group]
            self.bank.credit(self._key(own[0]), text, sum(t.total_reward for t in own) / len(own))
        for kind in sorted({self._key(t) for _, t in members}):
            if (found := best(t for _, t in members if self._key(t) == kind)) is not None:
                self.bank.add(kind, self.summarise(found))

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.bank.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.bank.load_state_dict(state)

    def _key(self, trajectory: Trajectory) -> str:
        return trajectory.task if self.by == "task" else trajectory.kind


def _members(batch: Batch) -> list[tuple[int, Trajectory]]:
    """Each trajectory with its group."""
    pairs = dict(zip(batch.traj.tolist(), batch.group.tolist(), strict=True))
    return [(pairs[n], each) for n, each in enumerate(batch.episodes or ()) if n in pairs]


def _opening(batch: Batch, row: int) -> int:
    """Tokens before the first message: those of the system message, which every row begins with."""
    assert batch.episodes is not None
    nodes = batch.episodes[int(batch.traj[row])].nodes
    ids = nodes[0].ids if nodes and nodes[0].role == "system" else []
    return len(ids) if batch.ids[row, : len(ids)].tolist() == list(ids) else 0
