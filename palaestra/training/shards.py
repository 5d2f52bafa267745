"""Tensors of which every rank has a part, written by all and read by any number of ranks.

`torch.distributed.checkpoint` does the work, in safetensors files whose headers say which part of a tensor is where, so
that nothing is pickled. All ranks must see the same folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from palaestra.errors import CheckpointError
from palaestra.training.ranks import ranks

DistributedCheckpointError = CheckpointException


def write_shards(folder: Path, kinds: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write tensors by kind and name; every rank must ask, with the same names.

    Raises:
        DistributedCheckpointError: a rank could not.
    """
    state = {f"{kind}.{name}": _lined(tensor) for kind, tensors in kinds.items() for name, tensor in tensors.items()}
    save(state, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


class Shards(Mapping[str, Tensor]):
    """What `write_shards` wrote of one kind: tensors without content (on the device `meta`) until they are `read`."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Raises:
        CheckpointError: it cannot be read.
        """
        self.folder, self._prefix = folder, f"{kind}."
        try:
            known = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        except Exception as error:  # the reader raises whatever a damaged file happens to cause
            raise CheckpointError(f"checkpoint {folder.parent} is damaged: cannot read {folder.name}/") from error
        self._known = {
            name.removeprefix(self._prefix): torch.empty(
                () if name.endswith(".step") else entry.size, dtype=entry.properties.dtype, device="meta"
            )
            for name, entry in known.items()
            if name.startswith(self._prefix) and isinstance(entry, TensorStorageMetadata)
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fill tensors, whole or of this rank's part; of several ranks every one must ask.

        Raises:
            CheckpointError: it cannot be read.
        """
        state = {f"{self._prefix}{name}": _lined(tensor) for name, tensor in into.items()}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process is as well
                load(state, storage_reader=HuggingFaceStorageReader(str(self.folder)), no_dist=ranks() == 1)
        except CheckpointException as error:
            raise CheckpointError(f"checkpoint {self.folder.parent} cannot be read: {error}") from error


def _lined(tensor: Tensor) -> Tensor:
    """The same memory with at least one dimension, which a slice of a file has."""
    return tensor.detach() if tensor.ndim else tensor.detach().view(1)
