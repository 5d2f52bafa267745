"""Engines on nodes of their own: GPUs in one place, environments and their sandboxes in another."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from ray.exceptions import RayActorError, RayTaskError

from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.distributed.policy import Policy
from palaestra.distributed.watch import Watch
from palaestra.distributed.weights import built, unpack
from palaestra.errors import EngineError

PAUSE_SECONDS = 0.2
"""Before an engine that was lost is asked again, where there is no other."""


class EngineHost:
    """What runs in the actor: an engine that takes the newest weights it has heard of."""

    def __init__(self, device: str, slots: int, threads: int, compiled: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        self._device, self._slots, self._compiled = device, slots, compiled
        self._engine: TorchEngine | None = None
        self._serial = -1
        self._updating = asyncio.Lock()

    async def ready(self) -> None:
        """Answer: whoever does is alive."""

    async def update(self, policy: Policy) -> None:
        """Use these weights from now on, unless later ones are here already."""
        async with self._updating:
            if policy.serial <= self._serial:
                return
            packing = await policy.refs.packing
            if self._engine is None:
                loaded = built(await policy.refs.skeleton, packing, self._device)
                self._engine = TorchEngine(loaded.model, slots=self._slots, compiled=self._compiled)
                await self._engine.update_weights({}, policy.version)
            else:
                await self._engine.update_weights(unpack(packing), policy.version)
            self._serial = policy.serial

    async def context_length(self, policy: Policy) -> int:
        """Most tokens of prompt and completion together."""
        await self.update(policy)
        assert self._engine is not None
        return self._engine.context_length

    async def generate(self, request: Request, policy: Policy) -> Completion:
        """Complete one prompt, with these weights or later ones."""
        await self.update(policy)
        assert self._engine is not None
        return await self._engine.generate(request)

    async def release(self, session: str) -> None:
        """Forget a conversation."""
        if self._engine is not None:
            await self._engine.release(session)


class RemoteEngine:
    """An `Engine` that asks one of several hosts, and another when that one is lost, or silent for too long.

    A completion that was lost is sampled again, to the same tokens: its draws have a seed of their own. So the death of
    an engine costs time, and no episode.
    """

    def __init__(self, hosts: Sequence[Any], first: int, name: str, silence_seconds: float) -> None:
        """Args:
        hosts: the actors.
        first: number of the one that is asked first.
        name: of who asks, unique: conversations of several workers must not be taken for one.
        silence_seconds: after these a host that gives no sign of life is killed.
        """
        self._name = name
        self._hosts = [Watch(host, silence_seconds) for host in hosts]
        self._turn = itertools.count(first)
        self._host = self._hosts[next(self._turn) % len(hosts)]
        self._policy: Policy | None = None
        self._context = 0

    @property
    def weight_version(self) -> int:
        """Version of the weights in use, or of earlier ones than those in use."""
        return self._policy.version if self._policy else 0

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._context

    async def use(self, policy: Policy) -> None:
        """Ask for these weights, or later ones, from now on."""
        self._policy = policy
        if not self._context:
            self._context = await self._asked("context_length", policy)

    async def generate(self, request: Request) -> Completion:
        """Complete one prompt.

        Raises:
            EngineError: the engine cannot.
        """
        named = msgspec.structs.replace(
            request, session=self._named(request.session), parent=self._named(request.parent)
        )
        completion: Completion = await self._asked("generate", named, self._policy)
        return completion

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Refuse: weights come through the object store."""
        raise EngineError("an engine on another node gets its weights by use()")

    async def release(self, session: str) -> None:
        """Forget a conversation; nobody waits for it."""
        self._host.actor.release.remote(self._named(session))

    async def close(self) -> None:
        """The hosts are the player's."""
        for host in self._hosts:
            host.close()

    def _named(self, session: str) -> str:
        return f"{self._name}/{session}" if session else ""

    async def _asked(self, method: str, *arguments: Any) -> Any:
        while True:
            host = self._host
            try:
                return await host.answer(getattr(host.actor, method).remote(*arguments))
            except RayActorError:
                if self._host is host:  # nobody else has found out yet
                    self._host = self._hosts[next(self._turn) % len(self._hosts)]
                await asyncio.sleep(PAUSE_SECONDS)
            except RayTaskError as error:
                raise EngineError(str(error.cause or error)) from None
