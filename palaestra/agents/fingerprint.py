"""Fingerprints of models on disk: whether two agents play with the same weights."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from palaestra.errors import CheckpointError

_PLAYED = frozenset({".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt"})
"""Endings of files that decide what a model writes: weights, configuration, tokenizer, chat template."""


def weights_fingerprint(path: Path, dtype: str) -> str:
    """Of the model in the directory, or the GGUF file, `path`, as `resolve_model` gives it, in memory as `dtype`.

    Raises:
        CheckpointError: a file cannot be read.
    """
    try:
        files = sorted(f for f in path.iterdir() if f.suffix in _PLAYED) if path.is_dir() else [path]
        lines = [f"{file_digest(file)} {file.name if path.is_dir() else ''}" for file in files if file.is_file()]
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    return hashlib.sha256("\n".join([dtype, *lines]).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, computed once for as long as it does not change."""
    stat = path.stat()
    return _digest(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, *_identity: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
