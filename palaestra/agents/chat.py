"""Chat formats: messages as token ids, made one message at a time and only ever appended.

A tokenizer's chat template renders a whole conversation as text. Rendering it again each turn would re-encode what the
policy sampled, and the ids could then differ from the sampled ones. So the template is taken apart once: it is rendered
with sentinel strings in place of the messages, and what stands between the sentinels are the pieces that open and close
each role. From then on every message is encoded alone, between ready-made pieces.

What environments and users write is never trusted: a special token spelled out in it is encoded as ordinary text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from palaestra.errors import ConfigError

_SYSTEM, _FIRST, _ANSWER, _SECOND, _LAST = "Qsystem0Q", "Quser1Q", "Qanswer2Q", "Quser3Q", "Qanswer4Q"


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that a chat format uses."""

    @property
    def eos_token_id(self) -> int | None:
        """Id that ends a text."""

    @property
    def all_special_ids(self) -> list[int]:
        """Ids that stand for no text."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """The conversation as text."""

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Token ids; with `split_special_tokens` a special token that the text spells out is ordinary text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> Any:
        """Text of token ids."""


@dataclass(frozen=True, slots=True)
class ChatPieces:
    """What a chat template writes around messages, as text."""

    begin: str
    """Before the first user message of a conversation without a system message (it may hold a default one)."""
    user_open: str
    user_close: str
    generation: str
    """After a user message: what makes the model answer."""
    assistant_close: str
    """The end token and what follows it."""
    system_open: str | None
    """With all that comes before it; `None` if the template has no system messages."""
    system_close: str


class ChatFormat:
    """Messages as token ids, for one tokenizer.

    A conversation is `system(...)`, then per turn `user(...)`, `generation`, the completion as sampled, and
    `close_completion(...)` of it: their concatenation is the token sequence, and no part is ever encoded twice.
    """

    def __init__(self, tokenizer: ChatTokenizer, pieces: ChatPieces, *, cache_size: int = 8192) -> None:
        self.tokenizer, self.pieces = tokenizer, pieces
        self._special = _special_ids(tokenizer)
        self._begin = self._trusted(pieces.begin)
        self._user_open, self._user_close = self._trusted(pieces.user_open), self._trusted(pieces.user_close)
        self._generation = self._trusted(pieces.generation)
        self._close = self._trusted(pieces.assistant_close)
        ends = [i for i, token in enumerate(self._close) if token in self._special]
        if not ends:
            raise ConfigError(
                f"the chat template ends the assistant's messages with {pieces.assistant_close!r}, "
                "which holds no special token to stop at; use a template that ends them with one"
            )
        self._after_end = self._close[ends[0] + 1 :]
        self.end_id: int = self._close[ends[0]]
        """The token with which the policy ends its message."""
        eos = tokenizer.eos_token_id
        self.stop_ids: tuple[int, ...] = (self.end_id,) if eos in (None, self.end_id) else (self.end_id, int(eos or 0))
        """Token ids that end a completion: `end_id`, and the tokenizer's own end of text where that is another."""
        self._encode = lru_cache(maxsize=cache_size)(self._untrusted)
        self._check_untrusted()

    @classmethod
    def from_tokenizer(cls, tokenizer: ChatTokenizer, *, cache_size: int = 8192) -> ChatFormat:
        """The format that the tokenizer's chat template describes.

        Args:
            tokenizer: a transformers tokenizer, or anything with the same five members.
            cache_size: how many distinct texts to remember the token ids of.

        Raises:
            ConfigError: there is no template, it cannot be taken apart, or it has no end token.
        """
        return cls(tokenizer, probe_template(tokenizer), cache_size=cache_size)

    def system(self, text: str | None) -> list[int]:
        """What a conversation begins with; `text=None`: without a system message (the template's default, if any).

        Raises:
            ConfigError: the template has no system messages.
        """
        if text is None:
            return list(self._begin)
        if self.pieces.system_open is None:
            raise ConfigError("this model's chat template has no system messages; leave the system prompt empty")
        return [*self._trusted(self.pieces.system_open), *self._encode(text), *self._trusted(self.pieces.system_close)]

    def user(self, text: str) -> list[int]:
        """A message to the model."""
        return [*self._user_open, *self._encode(text), *self._user_close]

    @property
    def generation(self) -> list[int]:
        """What makes the model answer, after a user message."""
        return list(self._generation)

    def completion(self, text: str) -> list[int]:
        """The ids of a message that the model writes, end token included: for constraints and for cloning."""
        return [*self._encode(text), self.end_id]

    def close_completion(self, ids: Sequence[int]) -> list[int]:
        """What to append to a sampled completion before the next message: the end token if it was cut off before one,
        and what the template writes behind the end token."""
        return list(self._after_end if ids and ids[-1] == self.end_id else self._close)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without the stop token that ends it."""
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def _trusted(self, text: str) -> list[int]:
        if not text:
            return []
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)

    def _untrusted(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _check_untrusted(self) -> None:
        """A tokenizer that ignores `split_special_tokens` would let an observation speak as the assistant."""
        for token in sorted({*self._user_open, *self._generation, *self._close} & self._special):
            text = str(self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
            if token in self._untrusted(text):
                raise ConfigError(f"the tokenizer cannot encode the text {text!r} without making a special token of it")


def probe_template(tokenizer: ChatTokenizer) -> ChatPieces:
    """Take the tokenizer's chat template apart.

    Raises:
        ConfigError: there is none, it fails, it changes the messages, or its pieces depend on the position.
    """
    user = {"role": "user", "content": _FIRST}
    talk = [
        user,
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _SECOND},
        {"role": "assistant", "content": _LAST},
    ]
    before, _, between, _, end = _split(_render(tokenizer, talk), _FIRST, _ANSWER, _SECOND, _LAST)
    user_open = _without_prefix(
        between, end, "closes the assistant's messages differently in the middle and at the end"
    )
    begin = _without_suffix(before, user_open, "opens the first user message unlike the second")
    _, user_close = _split(_render(tokenizer, [user]), _FIRST)
    _, asking = _split(_render(tokenizer, [user], generate=True), _FIRST)
    if asking == user_close:
        _, asking, _ = _split(_render(tokenizer, talk[:2]), _FIRST, _ANSWER)
    generation = _without_prefix(asking, user_close, "closes a user message differently before the answer")
    system_open, system_close = _probe_system(tokenizer, talk, user_open)
    return ChatPieces(begin, user_open, user_close, generation, end, system_open, system_close)


def _probe_system(tokenizer: ChatTokenizer, talk: list[dict[str, str]], user_open: str) -> tuple[str | None, str]:
    try:
        text = _render(tokenizer, [{"role": "system", "content": _SYSTEM}, *talk])
        opening, middle, *_ = _split(text, _SYSTEM, _FIRST)
        return opening, _without_suffix(middle, user_open, "opens the user message after a system message differently")
    except ConfigError:
        return None, ""


def _render(tokenizer: ChatTokenizer, talk: list[dict[str, str]], *, generate: bool = False) -> str:
    try:
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=generate))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(f"the tokenizer's chat template cannot render a conversation: {reason}") from error


def _split(text: str, *sentinels: str) -> list[str]:
    """The pieces of `text` around the sentinels, each of which must stand in it once, in order."""
    pieces = []
    for sentinel in sentinels:
        if text.count(sentinel) != 1:
            raise ConfigError(
                "the chat template cannot be taken apart: it drops, repeats, changes or reorders the messages "
                f"({sentinel!r} came out as {text[:200]!r})"
            )
        piece, _, text = text.partition(sentinel)
        pieces.append(piece)
    return [*pieces, text]


def _without_prefix(text: str, prefix: str, problem: str) -> str:
    if not text.startswith(prefix):
        raise ConfigError(f"the chat template cannot be taken apart: it {problem} ({text!r} and {prefix!r})")
    return text[len(prefix) :]


def _without_suffix(text: str, suffix: str, problem: str) -> str:
    if not text.endswith(suffix):
        raise ConfigError(f"the chat template cannot be taken apart: it {problem} ({text!r} and {suffix!r})")
    return text[: len(text) - len(suffix)]


def _special_ids(tokenizer: ChatTokenizer) -> frozenset[int]:
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    marked = (token for token, what in added.items() if getattr(what, "special", False))
    unknown = getattr(tokenizer, "unk_token_id", None)
    return frozenset({*tokenizer.all_special_ids, *marked} - {unknown})
