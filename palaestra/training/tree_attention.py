"""Which models can read trees of rows, and how they are told what each token may read.

Any attention that takes a mask of every query and key will do: plain products, `eager`, `sdpa`. On a GPU
`flex_attention` computes the allowed blocks only, so that a tree costs what its rows have in tokens of their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palaestra.errors import ConfigError
from palaestra.training.layout import Layout, cost_of
from palaestra.training.prefixes import Cost, trees

FLEX = "flex_attention"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Of the comparison, relative to the largest hidden state; other dtypes have 0.05."""


def attention_mask(model: Any, shape: Layout, device: torch.device) -> Any:
    """What a transformers model takes for `attention_mask` so that it reads the layout's trees.

    Blocks for `flex_attention`, [s, 1, L, L] bool for `sdpa`, and float32 addends for the others.
    """
    kind = _attention(model)
    if kind == FLEX:
        return _blocks(shape, device)
    allowed = shape.mask(device)
    if kind == "sdpa":
        return allowed
    return torch.zeros((), device=device).masked_fill(~allowed, -math.inf)


def reading_cost(model: Any) -> Cost:
    """Of a transformers model's forward pass."""
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return cost_of(model.base_model, width, int(config.num_hidden_layers), dense=_attention(model) != FLEX)


@torch.no_grad()
def require_trees(model: Any, key: str) -> None:
    """Have the model read two short rows as a tree and each by itself, and compare.

    Raises:
        ConfigError: it cannot, or says something else; the message names the recipe's `key`.
    """
    name = type(model).__name__
    mend = f"{name} reads what a mask and positions do not tell; switch it off"
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or _attention(model).startswith("flash"):
        raise ConfigError(f"{key}: {mend}")
    device = model.get_output_embeddings().weight.device
    rows = [np.array([1, 2, 3, 4, 5, 6]), np.array([1, 2, 3, 6, 4])]
    (tree,) = trees([(k, 0, row) for k, row in enumerate(rows)], Cost(), 64)
    whole = _one(tree.ids, tree.position, tree.end)
    try:
        found = _read(model, whole, device)
        expected = [_read(model, _one(row, np.arange(len(row)), np.full(len(row), len(row))), device) for row in rows]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}: {mend} ({type(error).__name__})") from error
    for k, alone in enumerate(expected):
        close = TOLERANCE.get(alone.dtype, 0.05) * float(alone.abs().max())
        if not float((found[torch.from_numpy(tree.places[k])] - alone).abs().max()) <= close:
            raise ConfigError(f"{key}: {mend}")


def _attention(model: Any) -> str:
    return str(model.config.get_text_config()._attn_implementation)


def _one(ids: Any, position: Any, end: Any) -> Layout:
    one, two, three = (torch.from_numpy(np.asarray(each))[None] for each in (ids, position, end))
    nothing = torch.zeros(0, dtype=torch.int64)
    return Layout(one, two, three, nothing, nothing, len(ids), plain=False)


def _read(model: Any, shape: Layout, device: torch.device) -> Tensor:
    state: Tensor = model.base_model(
        input_ids=shape.ids.to(device),
        position_ids=shape.position.to(device),
        attention_mask=attention_mask(model, shape, device),
        use_cache=False,
    ).last_hidden_state[0]
    return state.cpu()


def _blocks(shape: Layout, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    end = shape.end.to(device)

    def reads(sequence: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end[sequence, key])

    count, length = shape.ids.shape
    return create_block_mask(reads, count, None, length, length, device=str(device))
