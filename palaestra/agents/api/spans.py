"""Token ids of a chat as nodes of a trajectory.

The endpoint renders and encodes the whole chat each turn, and tells the ids of prompt and answer. Where a prompt begins
with everything before it, only what it adds becomes a node, and the episode stays one row for a learner. Where it does
not (the endpoint encoded an answer otherwise than it was sampled, or a window dropped turns), the record names the
nodes, as after any cut of the context. Either way a row holds exactly the tokens that the model read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from palaestra.agents.api.reply import Sampled
from palaestra.trajectories.record import Node


@dataclass
class Spans:
    """The nodes of one episode."""

    nodes: list[Node] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    """Nodes of the last prompt and answer, in order."""

    def add(self, sampled: Sampled) -> tuple[int, list[int] | None]:
        """Enter one prompt and answer; the answer's node, and the prompt as `StepRecord.prompt`."""
        known, at = self._shared(sampled.prompt)
        extends = len(known) == len(self.last)
        if at < len(sampled.prompt):
            known.append(len(self.nodes))
            self.nodes.append(Node(ids=sampled.prompt[at:]))
        completion = len(self.nodes)
        self.nodes.append(Node(ids=sampled.ids, role="assistant", sampled=True, logprobs=sampled.logprobs or []))
        self.last = [*known, completion]
        return completion, None if extends else known

    def _shared(self, prompt: Sequence[int]) -> tuple[list[int], int]:
        """The first nodes of `last` that the prompt begins with, and how many tokens they are."""
        known: list[int] = []
        at = 0
        for index in self.last:
            ids = self.nodes[index].ids
            if list(prompt[at : at + len(ids)]) != ids:
                break
            known.append(index)
            at += len(ids)
        return known, at
