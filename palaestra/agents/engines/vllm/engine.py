"""The vLLM engine: our contract over a transport."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.vllm.adapters import Adapters
from palaestra.agents.engines.vllm.checkpoint import check_weights, write_weights
from palaestra.agents.engines.vllm.gathering import Gathering
from palaestra.agents.engines.vllm.requests import completion, parameters
from palaestra.agents.engines.vllm.sender import Sender
from palaestra.agents.engines.vllm.transport import Adapter, Raw, Transport
from palaestra.errors import EngineError

LEAVING_SECONDS = 5.0
"""How long vLLM may take to forget our adapters when the engine is closed."""


class VLLMEngine:
    """An `Engine` around vLLM.

    Constraints, `top_k` and `top_p` mean what they mean everywhere else here, log-probs and entropies are those of the
    learner, and new weights take effect in the middle of a completion; its `versions` say where.
    """

    def __init__(
        self,
        transport: Transport,
        folder: Path,
        *,
        exchange: Path | None = None,
        sender: Sender | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        """Use `start` before anything else.

        Args:
            transport: vLLM.
            folder: The model directory that it was started with.
            exchange: Where new weights are written for it to read; a folder that its workers see, too. None given: it
                must be told of weights otherwise, and `update_weights` takes versions only.
            sender: Sends the learner's weights in place of files; those that `update_weights` is given must be its own.
            adapters: Writes what the learner trains, where that is adapters alone: `update_weights` hands over no more.
        """
        self._transport, self._folder, self._exchange, self._sender = transport, folder, exchange, sender
        self._adapters = adapters
        self._measured = Gathering(transport)
        self._version = self._syncs = self._numbers = 0
        self._adapter: Adapter | None = None
        self._users: Counter[Adapter | None] = Counter()
        """Completions under way, of each adapter that vLLM has, and without one."""
        self._ended = asyncio.Event()
        """A completion is over."""
        self._name = secrets.token_hex(4)
        """In the names of adapters: a server that somebody else started may have those of others."""
        self._syncing = asyncio.Lock()
        self._broken = ""
        self._closed = False
        self._work: set[asyncio.Task[Any]] = set()

    async def start(self) -> VLLMEngine:
        """Start vLLM; returns this engine.

        Raises:
            EngineError: it does not start.
        """
        try:
            await self._transport.start()
            await self._transport.label("0")
        except BaseException:
            await asyncio.shield(self._transport.close())
            raise
        return self

    @property
    def weight_version(self) -> int:
        """Version of the weights in use; starts at 0."""
        return self._version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._transport.context_length

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt; a prompt that leaves no room ends at once with `length`. Cancelling gives it up.

        Raises:
            EngineError: The engine is closed or died, or the prompt is empty.
        """
        self._check()
        if not request.prompt:
            raise EngineError("the prompt is empty: an engine needs at least one token to continue")
        limit = min(request.sampling.max_tokens, self.context_length - len(request.prompt))
        if limit <= 0:
            return completion(request, Raw(ids=[], logprobs=[], finish="length"), [], self._version)
        return await self._tracked(self._complete(request, limit))

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Use `weights` from now on, in the middle of completions too: they pause, and what they sampled is read again.
        Those that have an adapter end first.

        Args:
            weights: Tensors by parameter name, all of the model's (tied ones may be named once); an empty mapping says
                that only the version changed.
            version: What `weight_version` is from now on.

        Raises:
            CheckpointError: A name or a shape does not fit; nothing was changed.
            EngineError: The weights cannot be handed over; after a part of them the engine refuses to go on.
        """
        if weights and self._adapters is not None:
            await self.update_adapter(await asyncio.to_thread(self._adapters.write, weights, version), version)
            return
        async with self._turn():
            if weights:
                check_weights(self._folder, weights)
            if weights and self._sender is None:
                await asyncio.to_thread(write_weights, self._place(), weights)
            if weights:
                await self._apart(None)
            async with self._paused():
                await (self._reload(version) if weights else self._rename(version))
            if weights:
                await self._use(None)

    async def reload(self, folder: Path, version: int) -> None:
        """As `update_weights`, with the safetensors files of a folder that vLLM's workers see.

        Raises:
            EngineError: as there.
        """
        async with self._turn():
            await self._apart(None)
            async with self._paused():
                await self._reload(version, folder)
            await self._use(None)

    async def update_adapter(self, folder: Path, version: int) -> None:
        """Sample with a LoRA adapter from now on. Completions under way go on with the one that they began with; those
        without any end first.

        Args:
            folder: As peft writes it; must stay while it is in use.
            version: What `weight_version` is from now on; it is part of the adapter's name.

        Raises:
            EngineError: vLLM does not take it.
        """
        async with self._turn():
            self._numbers += 1
            adapter = Adapter(f"palaestra@{version}.{self._name}.{self._numbers}", self._numbers, folder)
            await self._apart(adapter)
            await self._transport.add_adapter(adapter)
            self._users[adapter], self._version = 0, version
            await self._use(adapter)

    async def release(self, session: str) -> None:
        """Nothing: vLLM gives up what was not used for longest when it needs the room."""

    async def close(self) -> None:
        """End vLLM, where we started it; waiting requests fail."""
        if self._closed:
            return
        self._closed = True
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        with suppress(EngineError, TimeoutError):  # it may have died
            await asyncio.wait_for(self._forget_adapters(), LEAVING_SECONDS)
        await self._transport.close()

    def _check(self) -> None:
        if self._closed or self._broken:
            raise EngineError(self._broken or "the engine is closed")

    async def _tracked(self, work: Any) -> Completion:
        task: asyncio.Task[Completion] = asyncio.ensure_future(work)
        self._work.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            ours = asyncio.current_task()
            if (self._broken or self._closed) and not (ours and ours.cancelling()):
                raise EngineError(self._broken or "the engine was closed") from None
            raise
        finally:
            self._work.discard(task)

    async def _complete(self, request: Request, limit: int) -> Completion:
        async with self._turn():  # who comes during a hand-over waits for its end
            version, adapter, salt = self._version, self._adapter, f"{self._version}.{self._syncs}"
        key = uuid.uuid4().hex
        params = parameters(request, key, limit)
        try:
            async with self._used(adapter):
                raw = await self._transport.sample(list(request.prompt), params, salt=salt, adapter=adapter)
        except asyncio.CancelledError:
            with suppress(EngineError):  # or it would take the place of the cancellation
                await asyncio.shield(self._forget(key))
            raise
        if self._broken:
            raise EngineError(self._broken)
        if raw.finish not in ("stop", "length"):
            raise EngineError(f"vLLM gave a completion up: {raw.finish}")
        measured = await self._measured.take(key, len(raw.ids))
        return completion(request, _without_spans(raw) if adapter else raw, measured, version)

    async def _forget(self, key: str) -> None:
        if not self._closed:
            await self._transport.call("palaestra_forget", key)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._syncing:
            self._check()
            yield

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """What breaks the engine leaves it paused: nothing is sampled from half of new weights."""
        try:
            await self._transport.pause()
            yield
        except BaseException:
            if not self._broken:
                with suppress(EngineError):  # the first error says more
                    await asyncio.shield(self._transport.resume())
            raise
        await asyncio.shield(self._transport.resume())

    async def _reload(self, version: int, folder: Path | None = None) -> None:
        try:
            if self._sender is not None and folder is None:
                await self._sender.send()
            else:
                await self._transport.call("palaestra_reload", str(folder or self._place()))
            await self._rename(version)
        except asyncio.CancelledError:
            self._break("cancelled")
            raise
        except EngineError as error:
            self._break(str(error))
            raise EngineError(self._broken) from error

    def _break(self, why: str) -> None:
        self._broken = f"vLLM may have loaded half of new weights, and is not used any more: {why}"
        for task in list(self._work):
            task.cancel()

    async def _rename(self, version: int) -> None:
        await self._transport.label(str(version))
        self._version = version
        self._syncs += 1

    def _place(self) -> Path:
        if self._exchange is None:
            raise EngineError(
                "this vLLM server shares no folder with us for new weights: give it one (engine.exchange)"
            )
        return self._exchange

    @asynccontextmanager
    async def _used(self, adapter: Adapter | None) -> AsyncIterator[None]:
        self._users[adapter] += 1
        try:
            yield
        finally:
            self._users[adapter] -= 1
            self._ended.set()
            await self._retire(adapter)

    async def _apart(self, adapter: Adapter | None) -> None:
        """Let completions end that have an adapter where what comes has none, or the other way round. Other weights
        below an adapter would be of no version, and vLLM's kernels for CPUs give the last adapter to those in a batch
        that have none."""
        while any(count for each, count in self._users.items() if (each is None) != (adapter is None)):
            self._ended.clear()
            await self._ended.wait()

    async def _use(self, adapter: Adapter | None) -> None:
        before, self._adapter = self._adapter, adapter
        await self._retire(before)

    async def _retire(self, adapter: Adapter | None) -> None:
        """Let vLLM forget an adapter that nobody uses any more; one that stays takes room, no more."""
        if adapter is not None and adapter != self._adapter and not self._users[adapter] and not self._closed:
            del self._users[adapter]
            with suppress(EngineError):
                await self._transport.remove_adapter(adapter)
            if self._adapters is not None:
                self._adapters.remove(adapter.folder)

    async def _forget_adapters(self) -> None:
        """A server that was here before stays when we go."""
        loaded = [adapter for adapter in self._users if adapter is not None]
        for adapter in loaded:
            if self._adapters is not None:
                self._adapters.remove(adapter.folder)
        for adapter in loaded:
            await self._transport.remove_adapter(adapter)


def _without_spans(raw: Raw) -> Raw:
    """An adapter's completion: vLLM's spans tell of the weights below it."""
    return Raw(ids=raw.ids, logprobs=raw.logprobs, finish=raw.finish)
