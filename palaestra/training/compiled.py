"""Compiled decoder layers."""

from __future__ import annotations

import torch

from palaestra.training.forward import PolicyModel
from palaestra.training.sharding import layers


def compile_layers(policy: PolicyModel, *, own: bool) -> None:
    """Have torch compile what a policy computes with.

    Args:
        policy: as the learner calls it; shapes may change from call to call.
        own: nobody else uses the model: then each layer is compiled in place, once for all of them. Otherwise the
            trunk is compiled as a whole, and an engine that shares the model is left alone.
    """
    if own:
        for layer in layers(policy.model):
            layer.compile(dynamic=True)
    else:
        policy.trunk = torch.compile(policy.trunk, dynamic=True)  # type: ignore[assignment]
