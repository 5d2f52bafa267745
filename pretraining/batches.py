"""Episodes as padded token batches with per-token loss weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pretraining.corpus import Mixture, episodes

BUCKETS = (96, 128, 160, 192, 256, 320, 384, 512)
"""Row lengths, in tokens; longer episodes are cut."""


class Encoder:
    """Messages to token ids and loss weights."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, observation_weight: float) -> None:
        self.weight = observation_weight
        special = tokenizer.convert_tokens_to_ids
        self.user, self.assistant, self.end = map(special, ("<|user|>", "<|assistant|>", "<|end|>"))
        self.encode = lru_cache(200_000)(lambda text: tuple(tokenizer.encode(text, add_special_tokens=False)))

    def __call__(self, episode: list[tuple[str, str]]) -> tuple[list[int], list[float]]:
        """Token ids of the whole episode, and the weight of each in the loss."""
        ids: list[int] = []
        weights: list[float] = []
        for role, text in episode:
            body = self.encode(text)
            if role == "user":
                ids += [self.user, *body]
                weights += [self.weight] * (len(body) + 1)
            else:
                ids += [self.assistant, *body, self.end]
                weights += [0.0] + [1.0] * (len(body) + 1)
        return ids, weights


def batches(encoder: Encoder, tokens: int, seed: int, mixture: Mixture = Mixture()) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids [B, T] int64, weights [B, T] float32), each of about `tokens` tokens, T one of `BUCKETS`.

    Rows are padded on the right with id 0 and weight 0; a batch's rows fell into the same length bucket.
    """
    shelves: dict[int, list[tuple[list[int], list[float]]]] = {length: [] for length in BUCKETS}
    for episode in episodes(seed, mixture):
        row = encoder(episode)
        length = next((b for b in BUCKETS if len(row[0]) <= b), BUCKETS[-1])
        shelf = shelves[length]
        shelf.append(row)
        if len(shelf) * length >= tokens:
            yield _pad(shelf, length)
            shelf.clear()


def _pad(rows: list[tuple[list[int], list[float]]], length: int) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    weights = torch.zeros(len(rows), length)
    for i, (tokens, weight) in enumerate(rows):
        n = min(len(tokens), length)
        ids[i, :n], weights[i, :n] = torch.tensor(tokens[:n]), torch.tensor(weight[:n])
    return ids, weights


def held_out(encoder: Encoder, count: int = 16) -> list[tuple[Tensor, Tensor]]:
    """A fixed sample of batches that no training seed draws, for the validation loss."""
    return list(islice(batches(encoder, 8192, seed=-1), count))
