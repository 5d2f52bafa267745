"""FSDP2: each rank keeps its part of every weight, gradient and moment, and has a layer whole while it computes it.

Learners use weights outside of a model's own `forward` (log-probs are computed from hidden states and the output head,
tile by tile), where FSDP would not notice. So everything that an update computes with the policy's weights runs within
the `forward` of one module around the model, the root of the sharding. Gradients are sums over the ranks, because
every rank's loss is already its part of the whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from palaestra.training.ranks import ranks

T = TypeVar("T")


class Whole(nn.Module):
    """A model and what is computed with its weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], T]) -> T:
        """What `compute` returns, called while the root's weights are whole; those of layers are so while they run."""
        return compute()


def shard(model: Any, *, autocast: torch.dtype | None = None, offload: bool = False) -> Whole:
    """Spread a transformers model over the ranks of the process group, layer by layer, in place.

    Args:
        model: the same on every rank.
        autocast: bfloat16 gathers weights and computes in it; gradients are summed in float32 all the same.
        offload: keep the parts, and so gradients and moments, in the CPU's memory. For GPUs.
    """
    device = model.get_output_embeddings().weight.device.type
    whole = Whole(model)
    kinds = MixedPrecisionPolicy() if autocast is None else MixedPrecisionPolicy(autocast, torch.float32)
    mesh = init_device_mesh(device, (ranks(),))
    kept = CPUOffloadPolicy() if offload else OffloadPolicy()
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=kinds, offload_policy=kept)
    # Resharded after a forward pass too, so that outside of one there are only parts.
    fully_shard(whole, mesh=mesh, mp_policy=kinds, offload_policy=kept, reshard_after_forward=True)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            if device == "cpu":  # gloo knows sums, and no premultiplied ones
                module.set_force_sum_reduction_for_comms(True)
    return whole


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank has only its part of it."""
    return isinstance(tensor, DTensor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of it, on every rank; every rank must ask."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`whole_tensor` of each, in their order."""
    return {name: whole_tensor(tensor.detach()) for name, tensor in tensors.items()}


def assign(target: Tensor, value: Tensor) -> None:
    """Copy `value`, a whole tensor, into `target`, which may be spread over the ranks."""
    if isinstance(target, DTensor) and not isinstance(value, DTensor):
        place = value.to(target.device, target.dtype)
        value = distribute_tensor(place, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(value)


@torch.no_grad()
def publish(model: nn.Module, into: nn.Module) -> None:
    """Give `into`, a whole model on every rank, the weights of the sharded one; every rank must ask."""
    own = dict(into.named_parameters())
    for name, parameter in model.named_parameters():
        own[name].copy_(whole_tensor(parameter))


def layers(model: Any) -> Iterator[nn.Module]:
    """The decoder layers: the members of the largest list of modules."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    largest = max(lists, key=lambda each: sum(p.numel() for p in each.parameters()), default=())
    yield from largest
