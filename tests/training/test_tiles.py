"""The compiled path of log-probs and entropies, which GPUs take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.training import logprob as module
from palaestra.training.logprob import logprob_entropy


def run(device: str = "cpu", dtype: torch.dtype = torch.float32, **options: Any) -> dict[str, Tensor]:
    """Values and gradients of a small problem, in float32 on the CPU."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 16, generator=random).to(device, dtype).requires_grad_()
    weight = torch.randn(101, 16, generator=random).to(device, dtype).requires_grad_()
    bias = torch.randn(101, generator=random).to(device, dtype).requires_grad_()
    labels = torch.randint(101, (37,), generator=random).to(device)
    logprob, entropy = logprob_entropy(hidden, weight, labels, bias=bias, temperature=0.7, **options)
    (logprob.sum() - 0.3 * entropy.square().sum()).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert bias.grad is not None
    found = {"logprob": logprob, "entropy": entropy, "h": hidden.grad, "w": weight.grad, "b": bias.grad}
    return {name: value.detach().float().cpu() for name, value in found.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=atol)


@pytest.mark.parametrize("options", [{}, {"chunk": 8, "vocab_chunk": 30}, {"scale": 0.5, "soft_cap": 5.0}])
def test_the_functions_that_are_compiled_are_right(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(module, "compiled", plain)
    assert_close(run(fused=True, **options), run(**options), 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_they_are_right_once_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert_close(run(fused=True, chunk=8, vocab_chunk=30), run(), 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_on_a_gpu(dtype: torch.dtype, atol: float) -> None:
    assert_close(run("cuda", dtype), run(dtype=dtype), atol)
