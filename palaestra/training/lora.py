"""Low-rank adapters: a few weights beside frozen ones (LoRA, Hu et al., arXiv 2106.09685), by peft.

Adapters are put into the model in place, so that the embedded engine plays with them as they are, and the model without
them is the reference that a KL term asks for. Checkpoints hold the adapters alone; a finished run has them in
`model/adapter/` as peft writes them, which engines can swap in, and merged into whole weights in `model/`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from palaestra.config import LoraConfig
from palaestra.errors import ConfigError, require

NAME = "default"
"""What peft calls the one adapter that there is."""


def add_lora(model: Any, config: LoraConfig, seed: int) -> None:
    """Freeze a transformers model and put adapters into it, which change nothing yet.

    Args:
        model: changed in place.
        config: which adapters.
        seed: their first factors are drawn from; the second ones are zero.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: the model has no modules of the names that the recipe gives.
    """
    peft = require("peft", "lora")
    wanted = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha or 2 * config.rank,
        target_modules=list(config.targets) or "all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model.add_adapter(wanted, adapter_name=NAME)
        except ValueError as error:
            raise ConfigError(f"model.lora.targets: {str(error).splitlines()[0]}") from error


def has_lora(model: Any) -> bool:
    """Whether adapters were put into it."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def own_weights(model: Any) -> dict[str, nn.Parameter]:
    """What a checkpoint holds of a model: its adapters where there are any, otherwise all weights."""
    adapters = has_lora(model)
    return {name: p for name, p in model.named_parameters() if not adapters or ".lora_" in name}


@contextmanager
def without_lora(model: Any) -> Iterator[None]:
    """The model as it was before it got adapters; not to be trained meanwhile."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()


def merged(model: Any) -> Any:
    """A copy of the model with its adapters added to its weights: an ordinary model."""
    layer_kind = require("peft.tuners.tuners_utils", "lora").BaseTunerLayer
    whole = copy.deepcopy(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, layer_kind):
            module.merge(safe_merge=True)
            parent, _, leaf = name.rpartition(".")
            setattr(whole.get_submodule(parent), leaf, module.get_base_layer())
    whole._hf_peft_config_loaded = False
    del whole.peft_config
    return whole.requires_grad_(True)


def save_adapters(folder: Path, model: Any) -> None:
    """Write the adapters alone, as peft does; engines load such a folder."""
    model.save_pretrained(folder)
