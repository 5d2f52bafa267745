"""A model on its way to other machines: its structure once, its weights once per version.

Weights travel as plain bytes beside names, shapes and dtypes. NumPy arrays are what Ray's object store shares between
the processes of a node without copying; bfloat16, which NumPy lacks, is why they are bytes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palaestra.agents.models import LoadedModel


@dataclass(frozen=True, slots=True)
class Packed:
    """One tensor."""

    dtype: str
    """As in `torch.bfloat16`, without `torch.`."""
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    """Its bytes, [n]."""


Packing = dict[str, Packed]
"""All weights by name; tied ones once."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without its weights: kilobytes, whatever its size."""

    model: PreTrainedModel
    """On the CPU; every parameter is empty."""
    tokenizer: PreTrainedTokenizerBase
    name: str


def skeleton_of(loaded: LoadedModel) -> Skeleton:
    """The structure of a model, which stays as it is."""
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty(0, dtype=parameter.dtype), requires_grad=False)
        for parameter in loaded.model.parameters()
    }
    return Skeleton(copy.deepcopy(loaded.model, empty).to("cpu"), loaded.tokenizer, loaded.name)


def pack(weights: Mapping[str, Tensor]) -> Packing:
    """All weights of a model. On a CPU their memory is shared, so hand them over before they change."""
    packed, seen = {}, set()
    for name, tensor in weights.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            packed[name] = _packed(tensor)
    return packed


def unpack(packing: Packing) -> dict[str, Tensor]:
    """The tensors; they share the memory of the packing, and must not be written to."""
    with warnings.catch_warnings():  # what comes from the object store is read-only, and torch says so each time
        warnings.simplefilter("ignore", UserWarning)
        return {
            name: torch.from_numpy(each.data).view(getattr(torch, each.dtype)).view(each.shape)
            for name, each in packing.items()
        }


def built(skeleton: Skeleton, packing: Packing, device: str) -> LoadedModel:
    """The skeleton's model, able to play, with weights of its own."""
    model, given = skeleton.model, unpack(packing)
    for name, own in model.state_dict(keep_vars=True).items():
        if name in given:
            own.data = given[name].clone()
    placed: PreTrainedModel = model.to(device)
    return LoadedModel(placed.eval(), skeleton.tokenizer, skeleton.name)


def _packed(tensor: Tensor) -> Packed:
    plain = tensor.detach().to("cpu").contiguous()
    return Packed(str(plain.dtype).removeprefix("torch."), tuple(plain.shape), plain.view(-1).view(torch.uint8).numpy())
