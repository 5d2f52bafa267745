"""The record of one episode: a graph of nodes that hold only the tokens they add, and the steps that walk it.

A **node** is one span of tokens that came in at once: a message that the environment wrote, or a completion that the
policy sampled. A **step** says which nodes, in order, were the prompt of its completion. With a full-history context
each prompt is the previous one, the previous completion and the new observation, so a whole episode is one row for a
learner; a window drops nodes from the front, and the step's `context` says so. No node is ever copied or re-encoded.

This module needs neither torch nor a tokenizer.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1

Status = Literal["ok", "error", "timeout", "cancelled", "overflow"]
"""`ok`: the episode ran to its end (solved or not). `overflow`: its context window was full. Others: it was cut off."""


UNTRAINABLE = "untrainable"
"""Key of `Trajectory.meta` under which an agent says why nobody can learn from what it played: for example, because the
endpoint that its model is behind tells no token ids."""


class Node(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One span of tokens."""

    ids: list[int]
    role: str = "user"
    """`system`, `user`, `tool` or `assistant`."""
    sampled: bool = False
    """True if the policy sampled every token here: these are the tokens that a learner trains (the policy mask)."""
    logprobs: list[float] = []
    """Of a sampled node, nats, as the engine reported them; one per id."""
    entropies: list[float] = []
    """Of a sampled node, nats; one per id, or empty where the engine cannot tell."""
    allowed: list[list[int]] | None = None
    """Of a constrained completion: per id, the sorted token ids that were allowed."""
    weight_version: int = 0
    """Of the weights that sampled it, or its first token."""
    versions: list[int] | None = None
    """Of a completion during which weights changed: the weight version per id; `None`: all `weight_version`."""


class StepRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One turn: what was seen, what was done, what came of it."""

    observation: str
    """What the agent saw before it acted."""
    action: str
    """What was sent to the environment."""
    reward: float
    """Of the transition, as the environment gave it."""
    prompt: list[int] | None = None
    """Indices of the nodes that were the prompt; `None`: the previous prompt, the previous completion, and every node
    up to this step's completion."""
    completion: int = -1
    """Index of the node that the policy sampled; -1 for agents that write text without tokens."""
    terminated: bool = False
    truncated: bool = False
    invalid: bool = False
    """The environment refused the action."""
    state_hash: str = ""
    """Hash chain over task, actions and observations up to and including this step's outcome."""
    tool: dict[str, Any] | None = None
    """Outcome of a tool call, where there was one."""
    generate_seconds: float = 0.0
    env_seconds: float = 0.0


class Trajectory(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One episode. Everything is JSON-shaped; see the module for the graph."""

    id: str
    """Unique in its run: `iteration/group/member`, for example."""
    env: str
    """Id of the environment, with its version."""
    task: str
    """Name of the task."""
    params: dict[str, Any] = {}
    """The task's parameters: with its name and seed, enough to play it again."""
    task_seed: int | None = None
    """The task's seed, with which the environment was reset; `None` in records of older versions."""
    split: str = ""
    kind: str = ""
    """Row of the evaluation table, for example the task type."""
    group: str = ""
    """Episodes of one group began in the same state."""
    seed: int = 0
    """With the id, of what the agent drew."""
    start_hash: str = ""
    """Of task, seed and first observation: the same for all members of a group."""
    agent: str = ""
    status: Status = "ok"
    error: str = ""
    """One line, where `status` is not `ok`."""
    success: bool = False
    total_reward: float = 0.0
    nodes: list[Node] = []
    steps: list[StepRecord] = []
    final_observation: str = ""
    branch_of: tuple[str, int] | None = None
    """Id of the trajectory that this one branched off, and how many of its steps it has from there. The record holds
    the whole episode all the same: those steps, and the nodes up to the last one's completion, are copies."""
    attempt: int = 0
    """How often the episode had to be started again before this record."""
    meta: dict[str, Any] = {}

    def prompt_of(self, index: int) -> list[int]:
        """Indices of the nodes that were the prompt of step `index`."""
        last = range(len(self.steps))[index]
        first = next((n for n in range(last, -1, -1) if self.steps[n].prompt is not None), 0)
        known = self.steps[first].prompt
        prompt = list(range(self.steps[first].completion)) if known is None else list(known)
        for previous, step in pairwise(self.steps[first : last + 1]):
            prompt.extend(range(previous.completion, step.completion))
        return prompt

    @property
    def parent(self) -> str:
        """Id of the trajectory that this one branched off; empty if it began at the prompt."""
        return self.branch_of[0] if self.branch_of else ""

    @property
    def branched_at(self) -> int:
        """How many steps, at the beginning, were played and sampled by the trajectory that this one branched off."""
        return min(self.branch_of[1], len(self.steps)) if self.branch_of else 0

    @property
    def own_steps(self) -> list[StepRecord]:
        """The steps that were played for this trajectory: every step of a run is in exactly one such list."""
        return self.steps[self.branched_at :]

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled for this trajectory; what came with the branch is not counted again."""
        copied = max((step.completion + 1 for step in self.steps[: self.branched_at]), default=0)
        return sum(len(node.ids) for node in self.nodes[copied:] if node.sampled)
