"""The embedded engine: samples from a transformers model in this process, with continuous admission.

Requests wait in a queue; one background task admits them to slots of the key-value cache, reads the prompts that wait
together in one padded call, and decodes all running slots together, one token a call. A slot that finishes is refilled
at once. The tokens of a conversation stay in its slot, so its next prompt costs only what is new in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from palaestra.agents.attention import use_plain_attention
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.forward import CachedModel
from palaestra.agents.engines.sampling import sample
from palaestra.agents.engines.slots import Generation, Slot, SlotTable
from palaestra.agents.engines.weights import copy_weights
from palaestra.errors import EngineError

_QUIET = 3  # rounds of the event loop without a new request, after which nobody is about to send one
_PATIENCE = 16  # decode calls that a prompt waits at most for others to be read together with
_CALL_OVERHEAD = 96  # what a model call costs before it computes anything, in tokens


class TorchEngine:
    """An `Engine` around any causal language model of transformers, on CPU or GPU.

    The model is used as it is, and may be the one that a learner trains: then `update_weights` copies nothing.
    In a fresh engine the same requests in the same order give identical results. What a request samples never depends
    on the other requests, apart from the rounding of floating-point sums.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        slots: int = 64,
        max_batch_tokens: int = 2048,
        fill_share: float = 0.5,
        plain_attention: bool | None = None,
        offload: bool = False,
        compiled: bool = False,
    ) -> None:
        """Wrap `model`.

        Args:
            model: The model; its device and dtype are kept.
            slots: Requests that are computed at once, and conversations whose prefix is kept.
            max_batch_tokens: Most tokens, padding included, that one call reads from prompts.
            fill_share: Prompts are read when at least this share of the admitted requests waits for it; agents that
                act in rounds then share the call.
            plain_attention: Use `palaestra.agents.attention`; by default on a CPU, where the model allows it.
            offload: Call the model in a thread, so that slow models leave the event loop to the environments. Batches
                then depend on timing, and results on it up to rounding.
            compiled: Have torch compile what computes one token of every running request. The first such call takes up
                to minutes, in a process that has not compiled the same model; results differ by rounding.

        Raises:
            EngineError: The model keeps states other than keys and values (recurrent or hybrid models).
        """
        self.model = model
        self._forward = CachedModel(model, compiled=compiled)
        self._table = SlotTable(slots)
        self._waiting: deque[Generation] = deque()
        self._max_batch_tokens, self._fill_share = max_batch_tokens, fill_share
        self._executor = ThreadPoolExecutor(1) if offload else None
        self._version = self._arrivals = self._held = 0
        self._pump: asyncio.Task[None] | None = None
        self._computing = asyncio.Lock()
        self._closed = False
        if plain_attention if plain_attention is not None else model.device.type == "cpu":
            use_plain_attention(model)

    @property
    def weight_version(self) -> int:
        """Version of the weights in use; starts at 0."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._forward.context_length

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt; a prompt that leaves no room ends at once with `length`. Cancelling frees the slot.

        Raises:
            EngineError: The engine is closed, the prompt is empty, or the model failed.
        """
        generation = self._generation(request)
        if generation.finish:
            return generation.completion()
        self._waiting.append(generation)
        self._arrivals += 1
        if self._pump is None or self._pump.done() or self._pump.get_loop() is not generation.future.get_loop():
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="palaestra-engine")
        try:
            return await generation.future
        finally:
            if generation.future.cancelled():
                self._sweep()

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Copy `weights` into the model in place, and forget every cached prefix; running requests go on with them.

        Args:
            weights: Tensors by parameter name, all of the model's (tied ones may be named once). Tensors that already
                are the model's own are not copied; an empty mapping says that the model was changed in place.
            version: What `weight_version` is from now on.

        Raises:
            CheckpointError: A name or a shape does not fit; nothing was changed.
        """
        async with self._computing:
            copy_weights(self.model, weights)
            self._version = version
            self._table.forget()

    async def release(self, session: str) -> None:
        """Forget the cached prefix of a conversation that has ended."""
        self._table.release(session)

    async def close(self) -> None:
        """Free the cache; waiting requests fail."""
        self._closed = True
        self._fail(EngineError("the engine was closed"))
        if self._pump is not None and not self._pump.done() and self._pump.get_loop() is asyncio.get_running_loop():
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        if self._executor is not None:
            self._executor.shutdown()
        self._forward.drop()

    def _generation(self, request: Request) -> Generation:
        if self._closed:
            raise EngineError("the engine is closed")
        if not request.prompt:
            raise EngineError("the prompt is empty: an engine needs at least one token to continue")
        room = self.context_length - len(request.prompt)
        limit = max(0, min(request.sampling.max_tokens, room))
        return Generation(request, asyncio.get_running_loop().create_future(), limit, self._version)

    async def _run(self) -> None:
        """Work until no request is left; the next one starts a new task."""
        try:
            while True:
                await self._let_requests_arrive()
                self._sweep()
                self._admit()
                running = self._table.running()
                if not running:
                    return
                await self._advance(running)
        except Exception as error:
            failure = error if isinstance(error, EngineError) else EngineError(f"the model failed: {error!r}")
            failure.__cause__ = None if failure is error else error
            self._fail(failure)

    async def _let_requests_arrive(self) -> None:
        """Give the environments their turn until nobody sends a new request, so that requests are computed together."""
        quiet = 0
        while quiet < _QUIET:
            before = self._arrivals
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._arrivals == before else 0

    def _sweep(self) -> None:
        """Drop requests whose caller has gone."""
        if any(generation.future.done() for generation in self._waiting):
            self._waiting = deque(g for g in self._waiting if not g.future.done())
        for slot in self._table.running():
            if slot.generation is not None and slot.generation.future.done():
                self._table.free(slot)

    def _admit(self) -> None:
        while self._waiting:
            slot = self._table.assign(self._waiting[0])
            if slot is None:
                return
            self._waiting.popleft().weight_version = self._version
            if (donor := self._table.donor(slot)) is not None:
                source, slot.cached = donor
                self._forward.copy(source.index, slot.index, slot.cached)
            self._take_forced(slot)

    async def _advance(self, running: list[Slot]) -> None:
        """One round: read the prompts that wait, or decode one token of every running slot."""
        decoding = [slot for slot in running if len(slot.ids) - slot.cached == 1]
        reading = [slot for slot in running if len(slot.ids) - slot.cached > 1]
        enough = len(reading) >= max(1.0, self._fill_share * len(running)) or self._held >= _PATIENCE
        if decoding and not enough:
            self._held += bool(reading)
            await self._compute(decoding, 1)
            return
        self._held = 0
        leaders, twins = _twins(reading)
        for batch, width in _batches(leaders, self._max_batch_tokens):
            await self._compute(batch, width, twins)

    async def _compute(
        self, slots: list[Slot], width: int, twins: Mapping[int, list[Slot]] = MappingProxyType({})
    ) -> None:
        """Compute up to `width` new tokens of each slot, and sample for those that have no more.

        `twins` (by slot index) have the same tokens to compute as a slot, and get what it gets.
        """
        async with self._computing:
            # A request may have been cancelled since the round began, and its slot emptied; twins of it wait a round.
            slots = [slot for slot in slots if slot.generation is not None]
            if not slots:
                return
            start = [slot.cached for slot in slots]
            tokens = [slot.ids[slot.cached : slot.cached + width] for slot in slots]
            work = [(slot, slot.generation, k) for k, slot in enumerate(slots)]
            work += [(twin, twin.generation, k) for k, slot in enumerate(slots) for twin in twins.get(slot.index, ())]
            logits = await self._call([slot.index for slot in slots], tokens, start)
            for twin, _, k in work[len(slots) :]:
                self._forward.copy(slots[k].index, twin.index, start[k] + len(tokens[k]))
            # Again, requests may have been cancelled during the call.
            work = [w for w in work if w[0].generation is not None and w[0].generation is w[1]]
            for slot, _, k in work:
                slot.cached += len(tokens[k])
            done = [(slot, k) for slot, _, k in work if slot.cached == len(slot.ids)]
            if done:
                rows = [k for _, k in done]
                self._sample([slot for slot, _ in done], logits if rows == list(range(len(logits))) else logits[rows])

    async def _call(self, rows: Sequence[int], tokens: Sequence[Sequence[int]], start: Sequence[int]) -> Tensor:
        if self._executor is None:
            return self._forward(rows, tokens, start)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._forward, rows, tokens, start)

    def _sample(self, slots: list[Slot], logits: Tensor) -> None:
        work = [(slot, slot.generation) for slot in slots if slot.generation is not None]
        choices = [generation.choices for _, generation in work]
        sampled = sample(
            logits,
            [generation.request.sampling.temperature for _, generation in work],
            [generation.draws[len(generation.ids)] for _, generation in work],
            choices,
            [generation.request.sampling.cut for _, generation in work],
        )
        for k, (slot, generation) in enumerate(work):
            if not sampled.logprobs[k] > float("-inf"):
                raise EngineError("the model's logits are not finite; its weights may have diverged")
            generation.append(sampled.ids[k], sampled.logprobs[k], sampled.entropies[k], choices[k], self._version)
            slot.ids.append(sampled.ids[k])
            self._take_forced(slot)

    def _take_forced(self, slot: Slot) -> None:
        """Take tokens that are the only choice without asking the model, and hand over a completion that is over."""
        generation = slot.generation
        if generation is None:
            return
        while not generation.finish and (choices := generation.choices) is not None and len(choices) == 1:
            generation.append(choices[0], 0.0, 0.0, choices, self._version)
            slot.ids.append(choices[0])
        if generation.finish:
            if not generation.future.done():
                generation.future.set_result(generation.completion())
            self._table.free(slot)

    def _fail(self, error: EngineError) -> None:
        running = self._table.running()
        for generation in [*self._waiting, *(slot.generation for slot in running)]:
            if generation is not None and not generation.future.done():
                generation.future.set_exception(error)
        self._waiting.clear()
        for slot in running:
            self._table.free(slot)
        self._table.forget()


def _twins(slots: list[Slot]) -> tuple[list[Slot], dict[int, list[Slot]]]:
    """Slots with nothing cached and the same tokens (episodes of one group): one of each; the others by its index."""
    leaders: list[Slot] = []
    found: dict[tuple[int, ...], list[Slot]] = {}
    for slot in slots:
        same = found.setdefault(tuple(slot.ids), []) if slot.cached == 0 else []
        if not same:
            leaders.append(slot)
        same.append(slot)
    return leaders, {same[0].index: same[1:] for same in found.values()}


def _batches(slots: list[Slot], max_tokens: int) -> Iterator[tuple[list[Slot], int]]:
    """Slots of similar numbers of new tokens together, longest first: padding never costs more than a call."""
    ordered = sorted(slots, key=lambda slot: (slot.cached - len(slot.ids), slot.index))
    batch: list[Slot] = []
    width = waste = 0
    for slot in ordered:
        new = min(len(slot.ids) - slot.cached, max_tokens)
        if batch and (waste + width - new > _CALL_OVERHEAD or (len(batch) + 1) * width > max_tokens):
            yield sorted(batch, key=lambda slot: slot.index), width
            batch, waste = [], 0
        width = width if batch else new
        waste += width - new
        batch.append(slot)
    if batch:
        yield sorted(batch, key=lambda slot: slot.index), width
