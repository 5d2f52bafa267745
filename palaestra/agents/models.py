"""Language models from local files: the shipped palaestra-tiny, a model directory, a GGUF file or a run directory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from palaestra.agents.fingerprint import file_digest
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
        CheckpointError: The files are incomplete, damaged (a `SHA256SUMS` beside them is checked), not those of a
            causal language model, pickled, or want to run Python code of their own.
        MissingExtraError: torch and transformers (extra `train`), or gguf (extra `gguf`), are not installed.
        ConfigError: The dtype is unknown, or the device is not there.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    for module in ("torch", "safetensors", "tokenizers", "transformers"):
        require(module, "train")
    path, name = resolve_model(reference)
    if path.suffix == ".gguf":
        require("gguf", "gguf")
        require("accelerate", "gguf")
        return _load_gguf(path, name, dtype, device)
    if str(reference) in SHIPPED:
        verify_hashes(path)
    elif (path / "SHA256SUMS").exists():
        verify_hashes(path, mend="restore it, or remove SHA256SUMS if it was meant to change")
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


def verify_hashes(folder: Path, mend: str = "reinstall palaestra") -> None:
    """Compare the files of `folder` with its `SHA256SUMS` (lines of "hash  name").

    Raises:
        CheckpointError: The list or a file is missing, or a file's hash differs.
    """
    try:
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        for line in filter(str.strip, lines):
            expected, name = line.split(maxsplit=1)
            file = folder / name.lstrip("*")
            if file_digest(file) != expected:
                raise CheckpointError(f"{file} is damaged (its SHA-256 is not the listed one); {mend}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is incomplete ({error}); {mend}") from error


def _load_gguf(path: Path, name: str, dtype: str, device: str) -> LoadedModel:
    import transformers

    # transformers that can keep a GGUF file's weights packed must be told not to; they could not be trained then.
    packing = getattr(transformers, "GgufConfig", None)
    options = {"quantization_config": packing(dequantize=True)} if packing else {}
    loaded = _load(path.parent, name, dtype, device, where={"gguf_file": path.name}, options=options)
    quantiser = getattr(loaded.model, "hf_quantizer", None)
    if quantiser is not None:  # nothing is packed any more, and a model that is marked so can be saved
        quantiser.remove_quantization_config(loaded.model)
    return loaded


def _load(
    folder: Path,
    name: str,
    dtype: str,
    device: str,
    *,
    where: Mapping[str, str] = MappingProxyType({}),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> LoadedModel:
    """`where` tells both readers what to read in `folder`; `options` are the model's alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shown = folder / where.get("gguf_file", "")
    local = {"local_files_only": True, "trust_remote_code": False, **where}
    if not where:
        _check_pickles(folder)
        options = {"use_safetensors": True, **options}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        # The reader of GGUF files draws a bar that transformers' own switch leaves on.
        with _quiet(), redirect_stderr(StringIO()) if where else nullcontext():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, in one line
                **local,
                **options,
            )
    except Exception as error:  # transformers and its readers raise whatever a damaged file happens to cause
        if "trust_remote_code" in str(error):
            told = "it names Python code of its own (auto_map), which is never run; use a model that transformers knows"
            raise CheckpointError(f"cannot load a model from {shown}: {told}") from error
        raise CheckpointError(f"cannot load a model from {shown}: {_line(error)}") from error
    _check_weights(str(shown), report)
    return LoadedModel(_placed(model, device).eval(), tokenizer, name)


def _check_pickles(folder: Path) -> None:
    pickles = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} holds its weights as {pickles[0]} only, a pickle, which is never read: it can run code; convert "
            f"it to model.safetensors where you trust it, by save_pretrained"
        )


def _check_weights(shown: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the model that `config.json` describes."""
    odd = sorted(report.get("mismatched_keys", ()))
    if odd:
        key, found, wanted = odd[0]
        shapes = f"{key} has shape {list(found)} and config.json wants {list(wanted)}"
        raise CheckpointError(f"{shown} holds the weights of another model: {shapes}")
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise CheckpointError(f"{shown} lacks {len(missing)} of the model's weights, among them {missing[0]}")
    unused = sorted(report.get("unexpected_keys", ()))
    if unused:
        warnings.warn(
            f"{shown}: {len(unused)} weights have no place in the model, among them {unused[0]}", stacklevel=4
        )


def _placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"cannot use device {device!r}: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _quiet:
    """Hide transformers' progress bar and its report while weights load."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._shown, self._verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._verbosity)
        if self._shown:
            logging.enable_progress_bar()
