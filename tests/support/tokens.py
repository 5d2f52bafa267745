"""Small tokenizers with chat templates, and a tokenizer wrapper that records every encode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TINY = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' </s>' }}"
    "{% else %}{{ raise_exception('no system messages') }}{% endif %}{% endfor %}"
)
SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>")
TEXT = ["You see desk 3. Your task is to: wait.", "go to desk 1", "take key 2", "look", "you did go to desk 10."]


@cache
def make_tokenizer(template: str, end: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with some merges and this template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)
    others = [token for token in SPECIAL if token not in (end, "<|pad|>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=end,
        pad_token="<|pad|>",
        extra_special_tokens=others,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def tiny() -> PreTrainedTokenizerFast:
    return make_tokenizer(TINY, "<|end|>")


def chatml() -> PreTrainedTokenizerFast:
    return make_tokenizer(CHATML, "<|im_end|>")


def llama2() -> PreTrainedTokenizerFast:
    return make_tokenizer(LLAMA2, "</s>")


class RecordingTokenizer:
    """A tokenizer that remembers every text that was encoded and every list of ids that was decoded."""

    def __init__(self, inner: PreTrainedTokenizerFast) -> None:
        self.inner = inner
        self.encoded: list[str] = []
        self.decoded: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, text: str, **options: Any) -> list[int]:
        self.encoded.append(text)
        return self.inner.encode(text, **options)

    def decode(self, token_ids: Sequence[int], **options: Any) -> Any:
        self.decoded.append(list(token_ids))
        return self.inner.decode(token_ids, **options)
