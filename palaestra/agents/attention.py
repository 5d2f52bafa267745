"""Attention as plain batched matrix products: on a CPU faster than the fused kernel for small models.

With few key-value heads one product per row does all query heads at once, a decode step reads a cropped cache without
copying it, and the backward pass is two more products (the fused kernel's backward pass took most of a training step).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME = "palaestra_plain"
"""What transformers knows this attention by (`attn_implementation=NAME`)."""


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Softmax attention in transformers' calling convention.

    Args:
        module: The attention layer; only its `training` flag is read.
        query: [B, H, Q, D].
        key: [B, K, L, D]; H is a multiple of K (grouped queries). May be a view that is cropped along L.
        value: Like `key`.
        attention_mask: [B or 1, 1, Q, L], added to the scores, or boolean (true: attend). `None` means causal.
        scaling: Factor of the scores; 1/sqrt(D) if `None`.
        dropout: Probability of dropping an attention weight while training.
        kwargs: What transformers passes to every attention function; not used.

    Returns:
        The output, [B, Q, H, D], and `None` in place of the weights.
    """
    (b, h, q, d), (kv, length) = query.shape, key.shape[1:3]
    groups, scale = h // kv, d**-0.5 if scaling is None else scaling
    bias = _bias(attention_mask, q, length, query)
    if q > 1 and kv == 1 and not torch.is_grad_enabled():
        # Without a backward pass the fused kernel is the faster one for many queries: it keeps the scores in cache.
        shared = (b, h, length, d)
        output = nn.functional.scaled_dot_product_attention(
            query, key.expand(shared), value.expand(shared), attn_mask=bias, scale=scale
        )
        return output.transpose(1, 2), None
    queries = (query * scale).reshape(b * kv, groups * q, d)
    keys, values = key.reshape(b * kv, length, d).transpose(1, 2), value.reshape(b * kv, length, d)
    scores = torch.bmm(queries, keys)
    scores.view(b, h, q, length).add_(bias)  # in place: the product's gradient does not need its result
    weights = _softmax(scores)
    if dropout and module.training:
        weights = nn.functional.dropout(weights, dropout)
    output = torch.bmm(weights, values)
    return output.view(b, h, q, d).transpose(1, 2), None


def _softmax(scores: Tensor) -> Tensor:
    """In at least single precision, returned in the dtype of the scores."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(-1, dtype=wide).to(scores.dtype)


def _bias(mask: Tensor | None, q: int, length: int, like: Tensor) -> Tensor:
    """The mask as an addend, [B or 1, 1, Q, L]."""
    if mask is not None and mask.dtype != torch.bool:
        return mask[..., :length]
    if mask is None:
        mask = torch.ones(q, length, dtype=torch.bool, device=like.device).tril(length - q)[None, None]
    return torch.zeros((), dtype=like.dtype, device=like.device).masked_fill(~mask[..., :length], -math.inf)


def use_plain_attention(model: PreTrainedModel) -> bool:
    """Switch `model` to `plain_attention` where that computes what the model means; tells whether it did.

    Models with soft-capped scores, attention sinks or an attention of their own keep what they have.
    """
    config = model.config.get_text_config()
    special = any(getattr(config, name, None) for name in ("attn_logit_softcapping", "use_sinks"))
    if special or config.model_type == "gpt_oss" or not getattr(model, "_supports_attention_backend", False):
        return False
    if config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)
    return True


AttentionInterface.register(NAME, plain_attention)
AttentionMaskInterface.register(NAME, eager_mask)
