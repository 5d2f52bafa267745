"""New weights for a model, copied in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from palaestra.errors import CheckpointError


@torch.no_grad()
def copy_weights(model: PreTrainedModel, weights: Mapping[str, Any]) -> None:
    """Copy `weights` (tensors by parameter name) into `model`, keeping its storage, and so its tied parameters.

    Tensors that share the model's storage are left alone; an empty mapping changes nothing.

    Raises:
        CheckpointError: A name is unknown or missing, or a shape differs; nothing was changed.
    """
    if not weights:
        return
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    unknown = [name for name in weights if name not in own]
    given = {own[name].data_ptr() for name in weights if name in own}
    missing = [name for name, tensor in own.items() if tensor.data_ptr() not in given]
    if unknown or missing:
        raise CheckpointError(f"weights of another model: unknown {unknown[:3]}, missing {missing[:3]}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, the model's has {list(own[name].shape)}")
    for name, tensor in weights.items():
        if tensor.data_ptr() != own[name].data_ptr():
            own[name].copy_(tensor)
