"""What a model does from its last hidden states to its logits: a linear map, then perhaps a scale and a soft cap.

    logits = c tanh(s (hidden @ weight.T + bias) / c)

Models differ in `s` (Cohere, Granite) and `c` (Gemma), and their configurations name both in different ways. So the
model is asked: one short forward pass in which the linear map's output is replaced by known numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from palaestra.errors import ConfigError

REACH = 60.0
"""Logits are tried from minus this to this: beyond what language models have, so that no cap stays unseen."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Of the comparison, relative to 1 + |logit|; other dtypes have 0.02."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How logits follow from the output of the linear map."""

    scale: float = 1.0
    """s, above 0."""
    soft_cap: float | None = None
    """c, above 0; `None`: no cap."""

    def __call__(self, linear: Tensor) -> Tensor:
        """Logits, of the shape and dtype of `linear`."""
        logits = linear * self.scale if self.scale != 1.0 else linear
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    @classmethod
    def of(cls, model: Any) -> HeadShape:
        """The shape of a transformers causal language model.

        Raises:
            ConfigError: the model does something else between its base model's last hidden states and its logits.
        """
        known, logits = _probe(model)
        close = TOLERANCE.get(known.dtype, 0.02)
        known, logits = known.double(), logits.double()
        error, _, best = min(
            (float(((shape(known) - logits).abs() / (1 + logits.abs())).max()), number, shape)
            for number, shape in enumerate(_candidates(model))
        )
        if not error <= close:
            raise ConfigError(
                f"{type(model).__name__} changes its logits in a way that training does not know; use another model"
            )
        return best


def _candidates(model: Any) -> Iterator[HeadShape]:
    """What the configuration may mean, the plain head first."""
    config = model.config.get_text_config()

    def values(*names: str) -> list[float]:
        found = (getattr(config, name, None) for name in names)
        return [float(value) for value in found if value]

    scales = values("logit_scale", "lm_head_multiplier", "output_multiplier")
    both = values("logits_scaling")  # Granite divides by it, HyperCLOVA X multiplies
    caps = values("final_logit_softcapping", "logits_soft_cap")
    for cap, scale in product([None, *caps], [1.0, *scales, *(1 / v for v in both), *both]):
        yield HeadShape(scale, cap)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)


@torch.no_grad()
def _probe(model: Any) -> tuple[Tensor, Tensor]:
    """Numbers put in place of the linear map's output, [1, t, V], and the logits that the model makes of them.

    Raises:
        ConfigError: the linear map does not get the base model's last hidden states.
    """
    head = model.get_output_embeddings()
    seen: dict[str, Tensor] = {}

    def replace(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["input"] = inputs[0]
        known = torch.linspace(-REACH, REACH, output.numel(), device=output.device).to(output.dtype)
        seen["known"] = known.view_as(output)
        return seen["known"].clone()

    hook, training = head.register_forward_hook(replace), model.training
    model.eval()
    try:
        ids = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        model.train(training)
        hook.remove()
    if not seen or not _same(seen["input"], hidden):
        raise ConfigError(
            f"{type(model).__name__} does not pass its last hidden states straight to its output head, "
            "which training relies on; use another model"
        )
    return seen["known"], logits
