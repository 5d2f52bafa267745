"""Gradient checkpointing without dropout: training mode that computes what evaluation mode does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from palaestra.errors import ConfigError


def recompute_activations(model: Any) -> None:
    """Make a transformers model recompute its layers in the backward pass.

    That needs training mode, so every source of randomness in the model is switched off for good: log-probs stay a
    function of weights and tokens, as the engine's are. Its configuration, and so a saved model, keeps its dropout.

    Raises:
        ConfigError: the model cannot recompute, or still computes something else in training mode.
    """
    name = type(model).__name__
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ConfigError(f"learner.gradient_checkpointing: {name} does not support it; set it to false")
    _remove_randomness(model)
    model.gradient_checkpointing_enable()
    expected = _hidden(model.eval())
    if not torch.allclose(_hidden(model.train()), expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ConfigError(f"learner.gradient_checkpointing: {name} is random in training mode; set it to false")


def _remove_randomness(model: nn.Module) -> None:
    """Modules hold their probabilities as numbers: `Dropout.p`, `attention_dropout`, `layerdrop`, `jitter_noise`."""
    for module in model.modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and (is_dropout or "drop" in name or "jitter" in name):
                setattr(module, name, 0.0)


@torch.no_grad()
def _hidden(model: Any) -> Tensor:
    head = model.get_output_embeddings().weight
    ids = torch.arange(8, device=head.device)[None] % len(head)
    state: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return state
