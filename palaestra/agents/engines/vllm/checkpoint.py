"""Model directories that vLLM loads, and weights in the place from which it reloads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palaestra.agents.models import LoadedModel
from palaestra.errors import CheckpointError, EngineError

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WEIGHTS = "model.safetensors"
ADAPTER = ".lora_"
"""In the names of adapters' parameters, and of no others."""


def write_checkpoint(folder: Path, loaded: LoadedModel) -> None:
    """Write what vLLM needs to start with `loaded`, without its adapters.

    Raises:
        EngineError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        loaded.model.config.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise cannot_hand_over(folder, error) from error
    write_weights(folder, base_weights(loaded.model.state_dict()))


def write_weights(folder: Path, weights: Mapping[str, Any]) -> None:
    """Write `weights`, and an output head where they have none: it is tied to the embedding then. Seen whole or not
    at all.

    Raises:
        EngineError: it cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    if EMBEDDING in tensors and (HEAD not in tensors or _shared(tensors[HEAD], tensors[EMBEDDING])):
        tensors[HEAD] = tensors[EMBEDDING].clone()
    write_tensors(folder / WEIGHTS, tensors)


def copy_weights(source: Path, folder: Path) -> None:
    """Copy the weights of one folder into another. Seen whole or not at all.

    Raises:
        EngineError: they cannot be read or written.
    """
    with _replaced(folder / WEIGHTS) as new:
        shutil.copyfile(source / WEIGHTS, new)


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file. Seen whole or not at all.

    Raises:
        EngineError: it cannot be written.
    """
    from safetensors.torch import save_file

    with _replaced(file) as new:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, metadata={"format": "pt"})


def cannot_hand_over(place: Path, error: Exception) -> EngineError:
    """What to raise where weights for vLLM cannot be written."""
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return EngineError(
        f"cannot write weights for vLLM to {place}: {reason}; make room there, or name a folder elsewhere in "
        "engine.exchange (TMPDIR says where the others are)"
    )


def base_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """A model's own weights, by the names that they have where it has no adapters."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if ADAPTER not in name}


def check_weights(folder: Path, weights: Mapping[str, Any]) -> None:
    """Compare names and shapes with those of the model that vLLM was started with: it would load what fits, and keep
    silent about the rest.

    Raises:
        CheckpointError: they are another model's.
    """
    own = shapes(folder)
    tied = {HEAD} if HEAD not in weights or HEAD not in own else set()
    unknown, missing = sorted(weights.keys() - own.keys() - tied), sorted(own.keys() - weights.keys() - tied)
    if unknown or missing:
        raise CheckpointError(f"weights of another model: unknown {unknown[:3]}, missing {missing[:3]}")
    for name, tensor in weights.items():
        if name in own and list(tensor.shape) != own[name]:
            raise CheckpointError(f"{name} has shape {list(tensor.shape)}, the model's has {own[name]}")


def shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of each tensor in a model directory, by name, from the heads of its safetensors files.

    Raises:
        CheckpointError: there are none, or one is damaged.
    """
    found: dict[str, list[int]] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as opened:
                head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            found |= {name: entry["shape"] for name, entry in head.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} has no readable safetensors: {error}") from error
    if not found:
        raise CheckpointError(f"{folder} has no safetensors files, which is what vLLM reads here")
    return found


@contextmanager
def _replaced(file: Path) -> Iterator[Path]:
    """What to write in place of `file`, which it then becomes."""
    new = file.with_name(f".{file.name}.new")
    try:
        yield new
        os.replace(new, file)
    except Exception as error:  # safetensors has error classes of its own for a full disk
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise cannot_hand_over(file.parent, error) from error


def _shared(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.device == torch.device("cpu")
