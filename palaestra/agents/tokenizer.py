"""A model's tokenizer without the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from palaestra.agents.models import SHIPPED
from palaestra.errors import CheckpointError, UnknownNameError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(reference: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from this machine; nothing is ever downloaded.

    Args:
        reference: a directory with `tokenizer.json`, a run directory, a `.gguf` file or a shipped model's name.

    Raises:
        UnknownNameError: there is no such path, and no such shipped model.
        CheckpointError: it holds no tokenizer that can be read.
        MissingExtraError: transformers (extra `train`) is not installed.
    """
    for module in ("tokenizers", "transformers"):
        require(module, "train")
    from transformers import AutoTokenizer

    path = SHIPPED.get(str(reference), Path(reference).expanduser())
    if not path.exists():
        raise UnknownNameError("tokenizer (neither a path nor shipped)", str(reference), SHIPPED)
    if path.is_dir() and not (path / "tokenizer_config.json").exists() and (path / "model").is_dir():
        path = path / "model"
    where = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **where)
    except Exception as error:  # transformers and its readers raise whatever a damaged file happens to cause
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"cannot load a tokenizer from {path}: {lines[0]}") from error
