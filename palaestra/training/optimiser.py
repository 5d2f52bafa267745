"""AdamW with a learning-rate schedule, whose state is plain named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from palaestra.config import OptimiserConfig
from palaestra.errors import CheckpointError
from palaestra.training.ranks import add_up, ranks
from palaestra.training.sharding import assign, is_sharded, whole_tensor
from palaestra.training.shards import Shards


def learning_rate(config: OptimiserConfig, iteration: int, total: int) -> float:
    """The rate of iteration `iteration` (from 0) of `total` planned ones; beyond them it stays at the floor."""
    warmup = math.ceil(config.warmup * total)
    if iteration < warmup:
        return config.lr * (iteration + 1) / warmup
    progress = min(1.0, (iteration - warmup) / max(1, total - 1 - warmup))
    match config.schedule:
        case "constant":
            height = 1.0
        case "linear":
            height = 1.0 - progress
        case "cosine":
            height = (1.0 + math.cos(math.pi * progress)) / 2
    if config.schedule == "constant":
        return config.lr
    return config.lr * (config.floor + (1.0 - config.floor) * height)


class Optimiser:
    """AdamW over the trainable parameters of a model; weight decay on matrices only."""

    def __init__(self, model: nn.Module, config: OptimiserConfig, *, offload: bool = False) -> None:
        """Args:
        model: its trainable parameters are stepped.
        config: how.
        offload: keep the moments in the CPU's memory between steps.
        """
        self.config, self._offload = config, offload
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = [p for p in self._parameters.values() if p.ndim >= 2]
        others = [p for p in self._parameters.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=1e-8, fused=True
        )

    def step(self, lr: float) -> float:
        """Clip the accumulated gradients, take a step, clear them.

        Returns:
            The gradient norm before clipping. If it is not finite no step is taken.
        """
        limit = self.config.grad_clip or math.inf
        norm = float(whole_tensor(nn.utils.clip_grad_norm_(self._parameters.values(), limit)))
        if math.isfinite(norm):
            for group in self._adam.param_groups:
                group["lr"] = lr
            if self._offload:
                self._move(None)
            self._adam.step()
            # The fused step does not count as a change, and players ask whether there was one.
            increment_version(list(self._parameters.values()))
            if self._offload:
                self._move(torch.device("cpu"))
        self.clear()
        return norm

    def _move(self, device: torch.device | None) -> None:
        """The moments to `device`; `None` for that of their parameter."""
        for parameter, state in self._adam.state.items():
            for key, value in state.items():
                state[key] = value.to(device or parameter.device)

    def add_up_gradients(self) -> None:
        """Replace gradients by their sums over the ranks; those of weights that are spread over them are so already."""
        if ranks() == 1 or any(is_sharded(parameter) for parameter in self._parameters.values()):
            return
        for parameter in self._parameters.values():
            if parameter.grad is None:  # this rank had no row
                parameter.grad = torch.zeros_like(parameter)
        add_up(parameter.grad for parameter in self._parameters.values() if parameter.grad is not None)

    def clear(self) -> None:
        """Drop accumulated gradients."""
        self._adam.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments and step counts, `PARAMETER.KEY`; empty before the first step."""
        state = self._adam.state
        return {
            f"{name}.{key}": value for name, p in self._parameters.items() for key, value in state.get(p, {}).items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CheckpointError: they belong to other parameters.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            name, _, key = full.rpartition(".")
            found.setdefault(name, {})[key] = value
        if found and set(found) != set(self._parameters):
            raise CheckpointError("the checkpoint's optimiser state is of another model")
        self._adam.state.clear()
        for name, values in found.items():
            parameter = self._parameters[name]
            if any(v.ndim and v.shape != parameter.shape for v in values.values()):
                raise CheckpointError(f"the checkpoint's optimiser state is of another model: {name} has another shape")
            self._adam.state[parameter] = {key: _like(parameter, value) for key, value in values.items()}
        if isinstance(tensors, Shards):
            tensors.read(self.state_tensors())


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of saved state where the fused AdamW wants it: beside the parameter; the step count stays float32."""
    if not value.ndim:
        return (
            torch.zeros((), device=parameter.device)
            if value.is_meta
            else value.to(parameter.device, torch.float32, copy=True)
        )
    if value.is_meta:  # it is read later
        return torch.zeros_like(parameter, requires_grad=False)
    if is_sharded(parameter):
        own = torch.zeros_like(parameter, requires_grad=False)
        assign(own, value)
        return own
    return value.to(parameter.device, parameter.dtype, copy=True)
