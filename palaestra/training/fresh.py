"""A model from nothing, for worlds of few words: a tokenizer of their text and palaestra-tiny's architecture.

A token for each common word keeps episodes short, which is what a small model on a CPU needs most; any other text
encodes without loss, byte by byte if need be.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palaestra.agents.attention import use_plain_attention

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PATTERN = r"\n+| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s+"
"""What a token may be at most: a word with the blank before it, one digit, one sign."""
POSITIONS = 2048
"""Tokens of context."""


def train_tokenizer(texts: Iterable[str], vocabulary: int, pattern: str = PATTERN) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `texts` with a chat template, of at most `vocabulary` tokens, none larger than `pattern`."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, special=True) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
    )


def build_model(vocabulary: int, *, width: int = 128, layers: int = 5, heads: int = 4) -> LlamaForCausalLM:
    """A Llama of `layers` layers and one key-value head, with random weights; 1.2 M parameters and its embeddings."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=1,
            intermediate_size=4 * width,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=None,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    use_plain_attention(model)  # its backward pass is faster on CPU than the fused kernel's
    return model


def young_optimisers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside the layers, AdamW for embeddings and norms.

    With AdamW alone a young model learns far more slowly to copy names. Needs torch 2.9.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others: list[nn.Parameter] = [p for p in model.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)]
