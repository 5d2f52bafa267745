"""Measurements are asked for together: one call to the workers for all completions that ended in the meantime."""

from __future__ import annotations

import asyncio
import json
import warnings

from palaestra.agents.engines.vllm.transport import Transport

Rows = list[list[float]]
"""Entropy and log share per token."""


class Gathering:
    """Fetches what the workers noted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: dict[str, tuple[int, asyncio.Future[Rows]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._told = False

    async def take(self, key: str, count: int) -> Rows:
        """Measurements of a finished request with `count` sampled tokens; empty if it was not measured.

        Raises:
            EngineError: the workers cannot be asked.
        """
        future: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._waiting[key] = count, future
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="palaestra-vllm-entropies")
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever else has just ended comes along
            batch, self._waiting = self._waiting, {}
            try:
                rows = await self._ask({key: count for key, (count, _) in batch.items()})
            except Exception as error:
                for _, future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for key, (_, future) in batch.items():
                if not future.done():
                    future.set_result(rows.get(key, []))

    async def _ask(self, counts: dict[str, int]) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for told in await self._transport.call("palaestra_take", json.dumps(counts)):
            found |= {key: rows for key, rows in told["rows"].items() if rows}
            self._tell(told["failure"])
        return found

    def _tell(self, failure: str) -> None:
        if failure and not self._told:
            self._told = True
            warnings.warn(f"vLLM's workers could not measure every entropy: {failure}", stacklevel=2)
