"""New weights by vLLM's own transfer engines, from GPU to GPU: NCCL between devices, whole or what has changed, and IPC
on one.

The hand-shake and the sending are vLLM's; here are its client over our transport, and what each back end wants to know.
No GPU was at hand when this was written: it is typed and its refusals are tested, its transfers are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from torch import nn

from palaestra.agents.engines.vllm.changes import Changes
from palaestra.agents.engines.vllm.server import HOST, free_port
from palaestra.agents.engines.vllm.transport import Transport
from palaestra.errors import ConfigError, EngineError, require

BACKENDS = ("nccl", "ipc", "sparse_nccl")


class Sender:
    """Sends a learner's present weights to vLLM's workers."""

    def __init__(self, transport: Transport, backend: str, model: nn.Module, *, workers: int) -> None:
        """Args:
        transport: reaches vLLM, which was started for this back end (`VLLMOptions.transfer`).
        backend: one of `BACKENDS`.
        model: the learner's; its tensors are sent from where they are.
        workers: vLLM's ranks.

        Raises:
            ConfigError: there is no such back end, the model is not on a GPU, or has too large a tensor.
        """
        device = next(model.parameters()).device
        if backend not in BACKENDS:
            raise ConfigError(f"unknown transfer of weights {backend!r}; use file or one of {', '.join(BACKENDS)}")
        if device.type != "cuda":
            raise ConfigError(f"engine.transfer={backend} sends from a GPU, and the model is on {device}; use file")
        self._transport, self._backend, self._model, self._workers = transport, backend, model, workers
        try:
            self._changes = Changes(model) if backend == "sparse_nccl" else None
        except ValueError as error:
            raise ConfigError(f"engine.transfer={backend}: {error}") from error
        self._engine: Any = None

    async def send(self) -> None:
        """Send them all; vLLM must be paused.

        Raises:
            EngineError: the transfer failed, perhaps half-way.
        """
        loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._send, _Client(self._transport, loop))
        except EngineError:
            raise
        except Exception as error:  # whatever NCCL, CUDA or vLLM raises
            raise EngineError(f"{self._backend} could not send the weights to vLLM: {error}") from error

    def _send(self, client: _Client) -> None:
        if self._engine is None:
            self._engine = self._opened(client)
        if self._changes is None:
            self._engine.send_weights()
        else:
            self._send_changes(self._changes)

    def _send_changes(self, changes: Changes) -> None:
        from vllm.distributed.weight_transfer.sparse_nccl_engine import SparseWeightPatch

        found = changes.found()
        self._engine.send_weights([SparseWeightPatch(*change) for change in found])
        changes.sent(found)

    def _opened(self, client: _Client) -> Any:
        require("vllm", "vllm")
        from vllm.distributed.weight_transfer.base import ModuleSource
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        source = ModuleSource(self._model) if self._changes is None else None
        return WeightTransferTrainerFactory.trainer_init(init_info=self._told(), client=client, source=source)

    def _told(self) -> Any:
        if self._backend == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=0)
        where = {"master_address": HOST, "master_port": free_port(), "world_size": 1 + self._workers}
        if self._backend == "sparse_nccl":
            from vllm.distributed.weight_transfer.sparse_nccl_engine import SparseNCCLTrainerInitInfo

            return SparseNCCLTrainerInitInfo(rank=0, **where)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        return NCCLTrainerInitInfo(rank=0, **where)


class _Client:
    """vLLM's `VLLMWeightSyncClient`: it is called from a thread, and our transport belongs to an event loop."""

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._do("init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._do("start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        self._do("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._do("finish_weight_update", {"weight_version": weight_version})

    def _do(self, step: str, body: Mapping[str, Any]) -> None:
        asyncio.run_coroutine_threadsafe(self._transport.transfer(step, body), self._loop).result()
