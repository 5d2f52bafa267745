"""Writing a model directory, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as transformers_logging

from palaestra.agents.models import LoadedModel
from palaestra.errors import PalaestraError
from palaestra.training.lora import has_lora, merged, save_adapters


def save_model(folder: Path, loaded: LoadedModel, *, mend: str = "") -> None:
    """Write a model directory that `load_model` reads, with the hashes of its files; a kill or a full disk leaves the
    earlier one, or none, rather than half of one.

    Raises:
        PalaestraError: it cannot be written; `mend` says what can be done then.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with _no_bars():
            if has_lora(loaded.model):
                save_adapters(partial / "adapter", loaded.model)
                merged(loaded.model).save_pretrained(partial)
            else:
                loaded.model.save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        _write_hashes(partial)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except Exception as error:  # the writers of weights and tokenizers have error classes of their own for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise PalaestraError(f"cannot write {folder}: {reason}{'; ' if mend else ''}{mend}") from error


def _write_hashes(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}"
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
