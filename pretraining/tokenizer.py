"""Train palaestra-tiny's tokenizer: byte-level BPE that may merge a name with its number, and the game's fixed phrases.

One token for " cabinet 3" makes copying a name a single choice, and commands two to four tokens long. Any text still
encodes without loss, byte by byte if need be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedTokenizerFast

from palaestra.envs.alfworld import vocabulary as v
from palaestra.training.fresh import train_tokenizer as train_on
from pretraining.corpus import episodes

PHRASES = (
    "-= Welcome to TextWorld, ALFRED! =-\n\n",
    "You are in the middle of a room. Looking quickly around you, you see a",
    ".\n\nYour task is to:",
    "You arrive at",
    ". On the",
    ", you see a",
    ", you see nothing.",
    " is open. In it, you see a",
    " is open. In it, you see nothing.",
    " is closed.",
    ", and a",
    ", a",
    ". The",
    "The",
    "On the",
    "You open the",
    "You close the",
    "You pick up the",
    "You move the",
    "You heat the",
    "You cool the",
    "You clean the",
    "You turn on the",
    "You sliced the",
    "You are carrying: a",
    "You are not carrying anything.",
    "You are facing the",
    ". Next to it, you see nothing.",
    "This is a",
    "There's nothing special about",
    "Nothing happens.",
    " using the",
    " from the",
    " to the",
    " with the",
    "go to",
)


def pattern() -> str:
    """The regular expression of pre-tokens: names with numbers, phrases, line breaks, words, digits, the rest."""
    phrases = "|".join(re.escape(p).replace("\\\n", "\\n") for p in sorted(PHRASES, key=len, reverse=True))
    return rf" [a-z]+ [0-9]+|{phrases}|\n+| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+"


def texts(count: int, seed: int = 0) -> Iterator[str]:
    """Messages of `count` episodes, then every name with numbers that ALFRED's scenes reach."""
    for episode in islice(episodes(seed), count):
        yield from (text for _, text in episode)
    for kind, most in ({k: 30 if k in ("Cabinet", "Drawer", "Shelf") else 6 for k in v.SPOKEN}).items():
        yield from (f" {v.SPOKEN[kind]} {n}" for n in range(1, most + 1) for _ in range(3))
        yield from (f" {v.SPOKEN[kind]}" for _ in range(3))


def train_tokenizer(size: int = 2048, count: int = 6000) -> PreTrainedTokenizerFast:
    """Train on the corpus and return it with its chat template."""
    return train_on(texts(count), size, pattern())
