"""How vLLM is started; the same in this process and behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from palaestra.errors import ConfigError

Device = Literal["cpu", "cuda"]
RUNNERS: dict[Device, Literal["v1", "v2"]] = {"cpu": "v1", "cuda": "v2"}
"""vLLM's model runner on each device; their logits processors have different base classes."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank of adapters."""
WORKER = "palaestra.agents.engines.vllm.worker.WorkerExtension"


class VLLMOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine needs to know of model and machine."""

    folder: Path
    """A model directory (`config.json` and safetensors); see `checkpoint.write_checkpoint`."""
    device: Device = "cpu"
    dtype: str = "float32"
    context_length: int = 2048
    """Most tokens of prompt and completion together."""
    slots: int = 64
    """Requests that are computed at once."""
    cache_gib: float = 1.0
    """Key-value cache on a CPU, GiB."""
    memory_share: float = 0.85
    """Share of a GPU's memory that the engine takes."""
    gpus: int = 1
    """Tensor-parallel ranks."""
    eager: bool = True
    """No compilation and no CUDA graphs: starts sooner, decodes slower."""
    lora_rank: int = 0
    """Largest rank of adapters; 0 for none."""
    untie: bool = True
    """Give a model with tied embeddings an output head of its own. On a CPU vLLM repacks the head when it starts and
    not when weights are reloaded, so that a tied one would stay what it was."""
    transfer: str = "file"
    """How new weights come: `file`, or one of vLLM's transfer engines (`nccl`, `ipc`, `sparse_nccl`; on GPUs)."""
    extra: dict[str, Any] = {}
    """More engine arguments of vLLM, by name."""

    def arguments(self) -> dict[str, Any]:
        """vLLM's engine arguments, by name."""
        runner = RUNNERS[self.device]
        arguments: dict[str, Any] = {
            "model": str(self.folder),
            "dtype": self.dtype,
            "max_model_len": self.context_length,
            "max_num_seqs": self.slots,
            "enforce_eager": self.eager,
            "tensor_parallel_size": self.gpus,
            "enable_prefix_caching": True,
            # As sampled, after temperature and constraint: what the learner computes.
            "logprobs_mode": "processed_logprobs",
            # A model directory may hold sampling parameters, which would change what a request did not ask for.
            "generation_config": "vllm",
            "logits_processors": [f"palaestra.agents.engines.vllm.processor_{runner}:EntropyProcessor"],
            "worker_extension_cls": WORKER,
        }
        if self.device == "cpu":
            arguments["kv_cache_memory_bytes"] = int(self.cache_gib * 2**30)
        else:
            arguments["gpu_memory_utilization"] = self.memory_share
        if self.lora_rank:
            rank = largest_rank(self.lora_rank)
            arguments |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 2, "max_cpu_loras": 4}
        if self.untie:
            arguments["hf_overrides"] = {"tie_word_embeddings": False}
        if self.transfer != "file":
            arguments["weight_transfer_config"] = {"backend": self.transfer}
        return arguments | self.extra

    def environ(self) -> dict[str, str]:
        """Environment variables that vLLM reads; nothing is downloaded and nothing reported to anybody."""
        return {
            "VLLM_USE_V2_MODEL_RUNNER": "1" if RUNNERS[self.device] == "v2" else "0",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or every engine of a machine takes the same cores
        }


def largest_rank(rank: int) -> int:
    """What vLLM is started with for adapters of `rank`.

    Raises:
        ConfigError: it takes none as large.
    """
    for least in RANKS:
        if rank <= least:
            return least
    raise ConfigError(f"vLLM takes adapters up to rank {RANKS[-1]}, and model.lora.rank is {rank}")
