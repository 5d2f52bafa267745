"""Slots: the rows of the cache, and the requests that occupy them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from palaestra.agents.constraint import Node
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.sampling import uniforms


@dataclass(slots=True, eq=False)
class Generation:
    """One request on its way to a completion."""

    request: Request
    future: asyncio.Future[Completion]
    limit: int
    """Most tokens to sample: `max_tokens`, or what the context has left."""
    weight_version: int
    """Of the weights that sampled the first token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    allowed: list[list[int]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    draws: list[float] = field(init=False)
    node: Node | None = field(init=False)
    finish: str = ""
    """Empty until the completion is over."""

    def __post_init__(self) -> None:
        self.draws = uniforms(self.request.sampling.seed, self.limit)
        constraint = self.request.constraint
        self.node = constraint.root if constraint else None
        if self.limit <= 0:
            self.finish = "length"

    @property
    def choices(self) -> list[int] | None:
        """The ids that may come next; `None` for all."""
        constraint = self.request.constraint
        return constraint.allowed(self.node) if constraint and self.node is not None else None

    def append(self, token: int, logprob: float, entropy: float, choices: list[int] | None, version: int) -> None:
        """Take one token, sampled or the only choice, and see whether the completion is over."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        self.versions.append(version)
        ended = token in self.request.sampling.stop_ids
        if choices is not None and self.request.constraint and self.node is not None:
            self.allowed.append(choices)
            self.node = self.request.constraint.child(self.node, token)
            ended = ended or not self.node
        if ended:
            self.finish = "stop"
        elif len(self.ids) >= self.limit:
            self.finish = "length"

    def completion(self) -> Completion:
        """What was sampled."""
        return Completion(
            ids=self.ids,
            logprobs=self.logprobs,
            entropies=self.entropies,
            allowed=self.allowed if self.request.constraint else None,
            finish=self.finish,
            weight_version=self.weight_version,
            versions=self.versions if any(version != self.weight_version for version in self.versions) else None,
        )


@dataclass(slots=True, eq=False)
class Slot:
    """One row of the cache."""

    index: int
    ids: list[int] = field(default_factory=list)
    """Tokens of the conversation so far."""
    cached: int = 0
    """How many of `ids` have their keys and values in the cache."""
    session: str = ""
    generation: Generation | None = None
    """The request being answered; `None` while idle."""
    used: int = 0
    """When the slot was last given to a request, for the choice of the one to give up."""


class SlotTable:
    """Assigns requests to slots: a conversation's own slot, else an empty one, else the one idle longest."""

    def __init__(self, n: int) -> None:
        self.slots = [Slot(index) for index in range(n)]
        self._by_session: dict[str, Slot] = {}
        self._clock = 0

    def running(self) -> list[Slot]:
        """Slots that answer a request, by index."""
        return [slot for slot in self.slots if slot.generation is not None]

    def assign(self, generation: Generation) -> Slot | None:
        """Put the request into a slot, keeping the cached prefix that its prompt shares; `None` if none is idle."""
        request = generation.request
        slot = self._by_session.get(request.session)
        if slot is None or slot.generation is not None:
            # A second request of a running conversation is answered, but does not take the conversation over.
            own, slot = slot is None, self._idle()
            if slot is None:
                return None
            self.clear(slot)
            if own and request.session:
                slot.session = request.session
                self._by_session[request.session] = slot
        slot.cached = _shared(slot, request.prompt)
        slot.ids = list(request.prompt)
        self._clock += 1
        slot.used, slot.generation = self._clock, generation
        return slot

    def donor(self, slot: Slot) -> tuple[Slot, int] | None:
        """Where the beginning of a new conversation is cached already, and how many tokens of it; `None` if nowhere."""
        assert slot.generation is not None
        source = self._by_session.get(slot.generation.request.parent)
        if slot.cached or source is None or source is slot:
            return None
        count = _shared(source, slot.ids)
        return (source, count) if count else None

    def free(self, slot: Slot) -> None:
        """The slot's request is over; its tokens stay for the next one of the same session."""
        slot.generation = None
        if not slot.session:
            self.clear(slot)

    def release(self, session: str) -> None:
        """Forget a conversation. A request of it that is still running goes on."""
        slot = self._by_session.pop(session, None)
        if slot is not None:
            slot.session = ""
            if slot.generation is None:
                self.clear(slot)

    def forget(self) -> None:
        """Forget all cached keys and values; running requests compute theirs again."""
        for slot in self.slots:
            slot.cached = 0

    def clear(self, slot: Slot) -> None:
        """Make an idle slot empty."""
        if slot.session:
            del self._by_session[slot.session]
        slot.session, slot.ids, slot.cached, slot.used = "", [], 0, 0

    def _idle(self) -> Slot | None:
        idle = (slot for slot in self.slots if slot.generation is None)
        return min(idle, key=lambda slot: (slot.used, slot.index), default=None)


def _shared(slot: Slot, prompt: Sequence[int]) -> int:
    """How many tokens of `prompt` the slot has in the cache; never all, because the last one gives the logits."""
    return min(_common(slot.ids, slot.cached, prompt), len(prompt) - 1)


def _common(old: Sequence[int], cached: int, new: Sequence[int]) -> int:
    """Length of the common prefix of the first `cached` of `old`, and `new`."""
    n = min(cached, len(new))
    if list(old[:n]) == list(new[:n]):
        return n
    return next(k for k in range(n) if old[k] != new[k])
