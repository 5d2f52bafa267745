"""Our logits processor for vLLM's V2 model runner (the GPU's).

Written to its base class; its bookkeeping is tested on a CPU, where that runner itself does not start.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from palaestra.agents.engines.vllm.watching import Watched, guarded, treat, watched


class EntropyProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM is not there where types are checked
    """As that of the V1 runner. Requests have slots here, and rows are in another order at every step."""

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        self._states = req_states
        self._slots: dict[int, Watched] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take the slot over; true where we want to see its logits."""
        self._slots.pop(req_idx, None)
        guarded(lambda: self._add(req_idx, sampling_params))
        return req_idx in self._slots

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        """Measure [R, V] logits, before temperature."""
        guarded(lambda: self._treat(logits, ctx))
        return logits

    def _add(self, slot: int, sampling_params: Any) -> None:
        found = watched(sampling_params)
        if found is not None:
            self._slots[slot] = found

    def _treat(self, logits: Tensor, ctx: LogitsContext) -> None:
        slots = ctx.idx_mapping_np.tolist()
        if len(slots) != len(logits):
            raise ValueError("several rows per request (speculative decoding) cannot be measured")
        lengths = ctx.seq_lens_upper_bound_np.tolist()
        rows, requests, outputs = [], [], []
        for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            count = int(length) - int(self._states.prompt_len.np[slot])
            if slot in self._slots and count >= 0:  # below: a part of a long prompt
                rows.append(row)
                requests.append(self._slots[slot])
                outputs.append(self._output(slot, count, self._slots[slot]))
        treat(logits, rows, requests, outputs)

    def _output(self, slot: int, count: int, request: Watched) -> list[int]:
        """What a request has sampled: from the device (which waits for it) only where a constraint wants to know."""
        if request.trie is None:
            return [0] * count
        start = int(self._states.prompt_len.np[slot])
        ids: list[int] = self._states.all_token_ids.gpu[slot, start : start + count].tolist()
        return ids
