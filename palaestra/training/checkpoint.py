"""Checkpoints: everything that a killed run needs to go on as if nothing had happened.

    checkpoints/000010/
      model.safetensors       the weights
      optimiser.safetensors   its tensors, `NAME.exp_avg` and the like
      NAME.safetensors        further ones: `critic`, where there is a critic
      state.json              iteration, the algorithm's state, counters, lengths of the run's growing files
      manifest.json           SHA-256 of all of them

Where weights are spread over ranks, the first two are `shards/*.safetensors` instead, a file of each rank.

A checkpoint is written into a hidden folder, forced to the disk, and renamed: there is never half of one under its
name. Nothing in it is pickled, so loading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from palaestra.errors import CheckpointError
from palaestra.training.lora import own_weights
from palaestra.training.ranks import on_first, rank
from palaestra.training.sharding import assign, is_sharded
from palaestra.training.shards import DistributedCheckpointError, Shards, write_shards

FORMAT = 1
_WHOLE = ("model.safetensors", "optimiser.safetensors")
_FILES = (*_WHOLE, "state.json")
_SHARDS = "shards"
_TENSORS = ".safetensors"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is saved and loaded."""

    iteration: int
    """Iterations that were complete."""
    model: Mapping[str, Tensor]
    """Weights by parameter name."""
    optimiser: Mapping[str, Tensor]
    """As `Optimiser.state_tensors` gives them."""
    state: dict[str, Any]
    """JSON values."""
    more: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """Further tensors, by the name of their file."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `folder/ITERATION` and remove all but the `keep` newest. Returns its path.

    Of several ranks all must ask; each writes the tensors that it has a part of, and the first one the others.

    Raises:
        CheckpointError: it could not be written; the earlier ones are untouched.
    """
    target = folder / f"{checkpoint.iteration:06d}"
    temporary = folder / f".{target.name}.partial"
    try:
        spread = any(is_sharded(tensor) for tensor in checkpoint.model.values())
        if spread:
            on_first(lambda: _begin(folder, temporary), CheckpointError)
            write_shards(temporary / _SHARDS, {"model": checkpoint.model, "optimiser": checkpoint.optimiser})
            checkpoint = replace(checkpoint, model={}, optimiser={})
        on_first(lambda: _complete(folder, temporary, target, checkpoint, keep, begun=spread), CheckpointError)
    except (OSError, SafetensorError, DistributedCheckpointError) as error:
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CheckpointError(
            f"cannot write checkpoint {target}: {reason}; earlier checkpoints are untouched, --resume goes on from them"
        ) from error
    return target


def _begin(folder: Path, temporary: Path) -> None:
    """An empty folder, and none of what a kill left unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".*.partial"):
        _remove(unfinished)
    temporary.mkdir()


def _complete(folder: Path, temporary: Path, target: Path, checkpoint: Checkpoint, keep: int, *, begun: bool) -> None:
    """Write what is not there yet, give it its name, and remove the oldest."""
    if not begun:
        _begin(folder, temporary)
    _write_files(temporary, checkpoint)
    _remove(target)
    os.replace(temporary, target)
    _sync(folder)
    _prune(folder, keep)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdigit() and path.is_dir())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, checking every byte against its manifest.

    Raises:
        CheckpointError: it is incomplete, damaged or of another format.
    """
    names = _verify(path)
    state = _read(path / "state.json", _json_object)
    if not isinstance(state.get("iteration"), int):
        raise CheckpointError(f"checkpoint {path} is damaged: state.json has no iteration")
    spread = not set(_WHOLE) <= set(names)
    more = [name for name in names if name not in _FILES and name.endswith(_TENSORS) and "/" not in name]
    return Checkpoint(
        iteration=state["iteration"],
        model=Shards(path / _SHARDS, "model") if spread else _read(path / "model.safetensors", load_file),
        optimiser=Shards(path / _SHARDS, "optimiser") if spread else _read(path / "optimiser.safetensors", load_file),
        state=state,
        more={name.removesuffix(_TENSORS): _read(path / name, load_file) for name in more},
    )


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning. `None` if there is none at all.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
    if paths:
        raise CheckpointError(f"all {len(paths)} checkpoints in {folder} are damaged; begin anew with another out=")
    return None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str = "the checkpoint") -> None:
    """Copy `weights` into `model`.

    Raises:
        CheckpointError: they are those of another model; the message names the first difference.
    """
    own = own_weights(model)
    odd = sorted(set(own) ^ set(weights))
    if odd:
        where = source if odd[0] in weights else "the model"
        raise CheckpointError(f"{source} is of another model: only {where} has {odd[0]!r} ({len(odd)} such names)")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, here {tuple(parameter.shape)}"
            raise CheckpointError(f"{source} is of another model: {name} has shape {shapes}")
    if isinstance(weights, Shards):
        weights.read({name: parameter.data for name, parameter in own.items()})
    else:
        for name, parameter in own.items():
            assign(parameter.data, weights[name])
    increment_version(list(own.values()))  # what is written into `data` does not count as a change


def blend(model: nn.Module, *, into: nn.Module, share: float = 1.0) -> None:
    """`into = share * model + (1 - share) * into`, parameter by parameter; with 1 a copy, bit for bit. The two are of
    one architecture."""
    own = dict(model.named_parameters())
    for name, parameter in into.named_parameters():
        if share == 1.0:
            parameter.data.copy_(own[name].data)
        else:
            parameter.data.lerp_(own[name].data, share)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and values of all parameters, in order of name."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        value = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    spread = sorted(f"{_SHARDS}/{file.name}" for file in (folder / _SHARDS).glob("*"))
    if not spread:
        save_file(_contiguous(checkpoint.model), folder / "model.safetensors")
        save_file(_contiguous(checkpoint.optimiser), folder / "optimiser.safetensors")
    state = {**checkpoint.state, "iteration": checkpoint.iteration}
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    for name, tensors in checkpoint.more.items():
        save_file(_contiguous(tensors), folder / f"{name}{_TENSORS}")
    own = ("state.json", *spread) if spread else _FILES
    names = (*own, *(f"{name}{_TENSORS}" for name in checkpoint.more))
    manifest = {"format": FORMAT, "files": {name: _digest(folder / name) for name in names}}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for name in (*names, "manifest.json", *([_SHARDS] if spread else [])):
        _sync(folder / name)
    _sync(folder)


def _prune(folder: Path, keep: int) -> None:
    """Remove all but the newest. One that stays costs room only, so that is a warning."""
    for old in list_checkpoints(folder)[:-keep]:
        try:
            _remove(old)
        except OSError as error:
            warnings.warn(f"cannot remove the old checkpoint {old}: {error.strerror or error}", stacklevel=3)


def _verify(path: Path) -> list[str]:
    """Names of its files."""
    manifest = _read(path / "manifest.json", _json_object)
    version = manifest.get("format")
    if version != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {version!r}; this version reads {FORMAT}")
    listed = manifest.get("files")
    listed = listed if isinstance(listed, dict) else {}
    spread = any(str(name).startswith(f"{_SHARDS}/") for name in listed)
    names = list(dict.fromkeys((*(("state.json",) if spread else _FILES), *(str(name) for name in listed))))
    for name in names:
        if name.removeprefix(f"{_SHARDS}/") != Path(name).name or _read(path / name, _digest) != listed.get(name):
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what was written")
    return names


def _read(path: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path.parent} is damaged: cannot read {path.name} ({error})") from error


def _json_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
