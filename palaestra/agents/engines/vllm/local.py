"""vLLM in this process (its workers are processes of their own)."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.engines.vllm.transport import Adapter, Raw, Span
from palaestra.errors import EngineError, require


class LocalTransport:
    """`AsyncLLM`; it belongs to the event loop that started it."""

    def __init__(self, options: VLLMOptions) -> None:
        self.options = options
        self.context_length = options.context_length
        self._llm: Any = None

    async def start(self) -> None:
        """As `Transport.start`."""
        for name, value in self.options.environ().items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        require("vllm", "vllm")
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = {"skip_tokenizer_init": True, "disable_log_stats": True, **self.options.arguments()}
        thread = ThreadPoolExecutor(1, thread_name_prefix="vllm-start")
        starting = thread.submit(AsyncLLM.from_engine_args, AsyncEngineArgs(**arguments))
        thread.shutdown(wait=False)
        try:
            self._llm = await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_abandoned)  # a thread goes on all the same
            raise
        except Exception as error:  # whatever a model, a machine or a setting makes vLLM raise
            raise EngineError(f"vLLM does not start with {self.options.folder}: {error}") from error

    async def sample(self, prompt: list[int], params: Mapping[str, Any], *, salt: str, adapter: Adapter | None) -> Raw:
        """As `Transport.sample`."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        wanted = SamplingParams(**params, output_kind=RequestOutputKind.FINAL_ONLY)
        inputs = TokensPrompt(prompt_token_ids=prompt, cache_salt=salt)
        outputs = self._llm.generate(inputs, wanted, uuid.uuid4().hex, lora_request=_lora(adapter))
        try:
            (output,) = [each async for each in outputs]
        except Exception as error:
            raise EngineError(f"vLLM failed: {_reason(error)}") from error
        return _raw(output.outputs[0])

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """As `Transport.call`."""
        results: list[Any] = await self._asked(self._llm.collective_rpc(method, args=arguments))
        return results

    async def pause(self) -> None:
        """As `Transport.pause`."""
        await self._asked(self._llm.pause_generation(mode="keep"))
        await self._asked(self._llm.reset_prefix_cache(reset_running_requests=True))

    async def resume(self) -> None:
        """As `Transport.resume`."""
        await self._asked(self._llm.resume_generation())

    async def label(self, label: str) -> None:
        """As `Transport.label`."""
        await self._asked(self._llm.update_weight_version(label))

    async def transfer(self, step: str, body: Mapping[str, Any]) -> None:
        """As `Transport.transfer`."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

        wrapped = {"init_info": WeightTransferInitRequest, "update_info": WeightTransferUpdateRequest}
        method = getattr(self._llm, step)
        await self._asked(method(*(wrapped[key](value) if key in wrapped else value for key, value in body.items())))

    async def add_adapter(self, adapter: Adapter) -> None:
        """As `Transport.add_adapter`."""
        await self._asked(self._llm.add_lora(_lora(adapter)))

    async def remove_adapter(self, adapter: Adapter) -> None:
        """As `Transport.remove_adapter`."""
        await self._asked(self._llm.remove_lora(adapter.number))

    async def close(self) -> None:
        """As `Transport.close`."""
        if self._llm is not None:
            llm, self._llm = self._llm, None
            await asyncio.to_thread(llm.shutdown)

    async def _asked(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:
            raise EngineError(f"vLLM failed: {_reason(error)}") from error


def _abandoned(starting: Future[Any]) -> None:
    """Nobody waits for this vLLM any more."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().shutdown()


def _lora(adapter: Adapter | None) -> Any:
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter.name, lora_int_id=adapter.number, lora_path=str(adapter.folder))


def _raw(output: Any) -> Raw:
    ids = list(output.token_ids)
    logprobs = [float(entry[token].logprob) for entry, token in zip(output.logprobs or [], ids, strict=True)]
    spans = [Span(span.version, span.start, span.end) for span in output.weight_versions or []]
    return Raw(ids=ids, logprobs=logprobs, finish=output.finish_reason or "nothing said", spans=spans)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
