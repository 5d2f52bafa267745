"""Our logits processor for vLLM's V1 model runner (the CPU's)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from palaestra.agents.engines.vllm.watching import Watched, guarded, treat, watched


class EntropyProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM is not there where types are checked
    """Reads the logits of our requests; changes those of a request with a constraint or a cut, and no others.

    It says that it may change what is likeliest, as only such processors see batches in which all take the likeliest;
    they see logits before temperature.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Watched, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """See the class."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that come, go and change rows."""
        guarded(lambda: self._follow(batch_update))

    def apply(self, logits: Tensor) -> Tensor:
        """Measure [R, V] logits, one row per request."""
        guarded(lambda: self._treat(logits))
        return logits

    def _follow(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, _entry)

    def _treat(self, logits: Tensor) -> None:
        rows = [row for row in sorted(self._rows) if row < len(logits)]
        treat(logits, rows, [self._rows[row][0] for row in rows], [self._rows[row][1] for row in rows])


def _entry(params: Any, prompt: list[int] | None, output: list[int]) -> tuple[Watched, list[int]] | None:
    """A request's entry; `output` is vLLM's own list, which grows. None for one that cannot be read: the others are."""
    found: list[Watched | None] = []
    guarded(lambda: found.append(watched(params)))
    return (found[0], output) if found and found[0] is not None else None
