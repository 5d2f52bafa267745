"""LoRA adapters as files: a folder for each version, for as long as vLLM may read it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palaestra.agents.engines.vllm.checkpoint import ADAPTER, cannot_hand_over, write_tensors


class Adapters:
    """Writes the adapters of a model that peft trains, in the form in which peft saves them."""

    def __init__(self, folder: Path, config: Any) -> None:
        """Args:
        folder: takes a folder for each version.
        config: peft's `LoraConfig` of the model.
        """
        self._folder, self._config = folder, config
        self._written = 0
        self.newest: Path | None = None
        """What was written last; it stays until the next one is there."""

    def write(self, weights: Mapping[str, Any], version: int) -> Path:
        """Write what is an adapter's in `weights`; the folder.

        Raises:
            EngineError: it cannot be written.
        """
        self._written += 1
        folder = self._folder / f"{version}.{self._written}"
        try:
            folder.mkdir(parents=True)
            self._config.save_pretrained(folder)
        except OSError as error:
            self.remove(folder)
            raise cannot_hand_over(folder, error) from error
        write_tensors(folder / "adapter_model.safetensors", adapter_weights(weights))
        self.newest = folder
        return folder

    def remove(self, folder: Path) -> None:
        """vLLM does not read it any more. One that was not written here stays, and so does the newest."""
        if folder.parent == self._folder and folder != self.newest:
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove them all."""
        self.newest = None
        shutil.rmtree(self._folder, ignore_errors=True)


def adapter_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The adapters' parameters under the names that peft saves them by: those of a model around ours, and without the
    name of the one adapter that there is."""
    return {
        f"base_model.model.{name.removesuffix('.weight').rpartition('.')[0]}.weight": tensor
        for name, tensor in weights.items()
        if ADAPTER in name
    }
