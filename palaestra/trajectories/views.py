"""Ways to look at a trajectory: its turns with their tokens, entropies and credit. No torch, no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palaestra.errors import DataError
from palaestra.trajectories.record import Node, StepRecord, Trajectory

CreditKind = Literal["step credit", "advantage", "return"]
"""What a turn's credit is: the algorithm's own per step, its one advantage for the episode, or the plain return."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of a trajectory together with what the policy sampled for it."""

    index: int
    """From 0."""
    step: StepRecord
    completion: Node | None
    """`None` for agents that write text without tokens."""
    credit: float
    """What the learner was told the step was worth; see `credit_kind`."""

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the sampled tokens in nats; `None` where it is unknown."""
        entropies = self.completion.entropies if self.completion else []
        return sum(entropies) / len(entropies) if entropies else None


def turns(trajectory: Trajectory) -> list[Turn]:
    """The turns of a trajectory in order.

    Raises:
        DataError: if a step names a node that does not exist.
    """
    credit = step_credit(trajectory)
    return [
        Turn(index=index, step=step, completion=_completion(trajectory, index), credit=credit[index])
        for index, step in enumerate(trajectory.steps)
    ]


def credit_kind(trajectory: Trajectory) -> CreditKind:
    """Where `step_credit` takes its numbers from: `meta["step_credit"]`, `meta["advantage"]` or the total reward."""
    per_step = trajectory.meta.get("step_credit")
    if isinstance(per_step, list) and len(per_step) == len(trajectory.steps) and all(map(_is_number, per_step)):
        return "step credit"
    return "advantage" if _is_number(trajectory.meta.get("advantage")) else "return"


def step_credit(trajectory: Trajectory) -> list[float]:
    """Credit of each step, of the kind that `credit_kind` says. Where it is one number, every step has it."""
    kind = credit_kind(trajectory)
    if kind == "step credit":
        return [float(value) for value in trajectory.meta["step_credit"]]
    value = trajectory.meta["advantage"] if kind == "advantage" else trajectory.total_reward
    return [float(value)] * len(trajectory.steps)


def entropy_by_turn(trajectories: Sequence[Trajectory]) -> list[float | None]:
    """Mean over trajectories of each turn's mean entropy, nats, by turn index; `None` for turns without entropies.

    What a trajectory has from the one that it branched off counts there only.
    """
    columns: list[list[float]] = []
    for trajectory in trajectories:
        columns += [[] for _ in range(len(trajectory.steps) - len(columns))]
        for turn in turns(trajectory)[trajectory.branched_at :]:
            if turn.entropy is not None:
                columns[turn.index].append(turn.entropy)
    return [sum(column) / len(column) if column else None for column in columns]


def _completion(trajectory: Trajectory, index: int) -> Node | None:
    node = trajectory.steps[index].completion
    if node < 0:
        return None
    if node >= len(trajectory.nodes):
        raise DataError(f"trajectory {trajectory.id!r}, step {index}: there is no node {node}")
    return trajectory.nodes[node]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
