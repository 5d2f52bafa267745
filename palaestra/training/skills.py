"""Skills: short texts about how tasks of a kind were solved, and which of them is worth reading (Skill-SD)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from palaestra.trajectories.record import Trajectory

Summarise = Callable[[Trajectory], str]
"""What a solved episode teaches, in a few words; empty for nothing."""


@dataclass(slots=True)
class Skill:
    """One text and how it did."""

    text: str
    count: int = 0
    """Groups whose teacher has read it."""
    total: float = 0.0
    """Sum of the mean returns of those groups."""

    @property
    def mean(self) -> float:
        """Mean return; 0 for one that nobody has read."""
        return self.total / self.count if self.count else 0.0


@dataclass(slots=True)
class SkillBank:
    """The skills of each kind of task, oldest first."""

    size: int = 8
    """Most skills of a kind."""
    explore: float = 1.0
    """Constant of the upper confidence bound."""
    skills: dict[str, list[Skill]] = field(default_factory=dict)

    def choose(self, kind: str, taken: Mapping[int, int] | None = None) -> int | None:
        """Position of the skill with the best `mean return + explore sqrt(ln N / n)`, untried ones first, of equal ones
        the oldest; `None` without any. `taken`: how often each was chosen since, which counts without a return."""
        known, taken = self.skills.get(kind, []), taken or {}
        counts = [skill.count + taken.get(place, 0) for place, skill in enumerate(known)]
        if not known:
            return None
        if 0 in counts:
            return counts.index(0)
        log = math.log(sum(counts))
        bound = [s.mean + self.explore * math.sqrt(log / n) for s, n in zip(known, counts, strict=True)]
        return bound.index(max(bound))

    def credit(self, kind: str, text: str, value: float) -> None:
        """A group whose teacher had read `text` had this mean return."""
        for skill in self.skills.get(kind, []):
            if skill.text == text:
                skill.count, skill.total = skill.count + 1, skill.total + value

    def add(self, kind: str, text: str) -> None:
        """Keep a new text. A full kind gives up its worst one, if all have been tried."""
        known = self.skills.setdefault(kind, [])
        if not text or any(skill.text == text for skill in known):
            return
        if len(known) >= self.size:
            if any(skill.count == 0 for skill in known):
                return
            known.remove(min(known, key=lambda skill: skill.mean))
        known.append(Skill(text))

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {kind: [[s.text, s.count, s.total] for s in known] for kind, known in self.skills.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.skills = {
            kind: [Skill(str(text), int(count), float(total)) for text, count, total in known]
            for kind, known in state.items()
        }


def actions_of(trajectory: Trajectory, template: str, most: int) -> str:
    """The deterministic summary: the actions that the environment took, in `template`'s `{actions}`."""
    actions = [step.action for step in trajectory.steps if not step.invalid]
    told = "; ".join(actions[:most]) + ("; ..." if len(actions) > most else "")
    return template.replace("{actions}", told) if actions else ""


def best(trajectories: Iterable[Trajectory]) -> Trajectory | None:
    """The solved one with the highest return, of equal ones the shortest, then the first by id."""
    solved = [each for each in trajectories if each.success]
    return min(solved, key=lambda t: (-t.total_reward, len(t.steps), t.id)) if solved else None
