"""Language models from local files: the shipped palaestra-tiny, a model directory, a GGUF file or a run directory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.errors import CheckpointError, ConfigError, UnknownNameError, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHIPPED = {"palaestra-tiny": Path(__file__).parents[1] / "models" / "tiny"}
"""Models that come with the package, by name."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model and its tokenizer."""

    model: PreTrainedModel
    """In evaluation mode, on the device asked for."""
    tokenizer: PreTrainedTokenizerBase
    name: str
    """The shipped name, or the name of the directory or file (of a run: the run's)."""


def load_model(reference: str | Path, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """Load a model from this machine; nothing is ever downloaded.

    Args:
        reference: A shipped model's name (`palaestra-tiny`), a directory that `save_pretrained` wrote, a run directory
            (its `model/` is loaded), or a `.gguf` file.
        dtype: `float32`, `bfloat16` or `float16`.
        device: A torch device, such as `cpu` or `cuda:0`.

    Raises:
        UnknownNameError: There is no such path, and no such shipped model.
        CheckpointError: The files are incomplete, damaged, or not those of a causal language model.
        MissingExtraError: torch and transformers (extra `train`), or gguf (extra `gguf`), are not installed.
        ConfigError: The dtype is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    require("torch", "train")
    require("transformers", "train")
    path, name = resolve_model(reference)
    if path.suffix == ".gguf":
        require("gguf", "gguf")
        require("accelerate", "gguf")
        return _load(path.parent, name, dtype, device, gguf_file=path.name)
    if str(reference) in SHIPPED:
        verify_hashes(path)
    return _load(path, name, dtype, device)


def resolve_model(reference: str | Path) -> tuple[Path, str]:
    """The directory or GGUF file that `reference` means, and its name.

    Raises:
        UnknownNameError: There is no such path, and no such shipped model.
        CheckpointError: The path is not a model.
    """
    if str(reference) in SHIPPED:
        return SHIPPED[str(reference)], str(reference)
    path = Path(reference).expanduser()
    if not path.exists():
        raise UnknownNameError("model (neither a path nor shipped)", str(reference), SHIPPED)
    if path.is_file():
        if path.suffix != ".gguf":
            raise CheckpointError(f"{path} is not a model: give a directory or a .gguf file")
        return path, path.stem
    if not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
        return path / "model", path.resolve().name
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path} has no config.json: it is neither a model directory nor a finished run")
    return path, path.resolve().name


def verify_hashes(folder: Path) -> None:
    """Compare the files of `folder` with its `SHA256SUMS` (lines of "hash  name").

    Raises:
        CheckpointError: The list or a file is missing, or a file's hash differs.
    """
    try:
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        for line in filter(str.strip, lines):
            expected, name = line.split(maxsplit=1)
            file = folder / name.lstrip("*")
            if hashlib.sha256(file.read_bytes()).hexdigest() != expected:
                raise CheckpointError(f"{file} is damaged (its SHA-256 is not the listed one); reinstall palaestra")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is incomplete ({error}); reinstall palaestra") from error


def _load(folder: Path, name: str, dtype: str, device: str, **where: Any) -> LoadedModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shown = folder / where.get("gguf_file", "")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **where)
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True, **where
            )
    except Exception as error:  # transformers and its readers raise whatever a damaged file happens to cause
        raise CheckpointError(f"cannot load a model from {shown}: {_line(error)}") from error
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise CheckpointError(f"{shown} lacks {len(missing)} of the model's weights, among them {missing[0]}")
    return LoadedModel(model.to(device).eval(), tokenizer, name)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _quiet:
    """Hide transformers' progress bar while weights load."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._shown:
            logging.enable_progress_bar()
