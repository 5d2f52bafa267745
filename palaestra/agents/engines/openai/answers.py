"""What endpoints answer, as types: what we read is checked, everything else is passed over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from palaestra.errors import EngineError

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
TokenId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_ABOVE = 1e-3
"""How far above 0 rounding may put a log-prob."""
_MARK = "token_id:"
"""What servers that are asked for `return_tokens_as_token_ids` write before the number of a token."""
_MOST_CALLS = 64

T = TypeVar("T")


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None


class TokenCounts(msgspec.Struct):
    """The field `usage`."""

    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the endpoint had kept."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = ""


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[_Call], msgspec.Meta(max_length=_MOST_CALLS)] | None = None


class _TokenLogprob(msgspec.Struct):
    logprob: float
    token: str = ""


class _ChatLogprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None


class _ChatChoice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None
    token_ids: list[TokenId] | None = None


class ChatAnswer(msgspec.Struct):
    """Of `/chat/completions`."""

    choices: Annotated[list[_ChatChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: TokenCounts | None = None
    prompt_token_ids: list[TokenId] | None = None

    @property
    def sampled(self) -> tuple[list[int] | None, list[float] | None]:
        """Token ids and log-probs of the answer, each where there are any."""
        choice = self.choices[0]
        told = choice.logprobs.content if choice.logprobs is not None else None
        ids = choice.token_ids
        if ids is None and told is not None:
            ids = marked_ids([token.token for token in told])
        return ids, None if told is None else [token.logprob for token in told]


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] | None = None
    tokens: list[str] | None = None


class _TextChoice(msgspec.Struct):
    text: str
    finish_reason: str | None = None
    logprobs: _TextLogprobs | None = None
    token_ids: list[TokenId] | None = None
    prompt_token_ids: list[TokenId] | None = None


class TextAnswer(msgspec.Struct):
    """Of `/completions`."""

    choices: Annotated[list[_TextChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: TokenCounts | None = None

    @property
    def sampled(self) -> tuple[list[int] | None, list[float | None] | None]:
        """Token ids and log-probs of the answer, each where there are any."""
        choice = self.choices[0]
        told = choice.logprobs
        ids = choice.token_ids
        if ids is None and told is not None and told.tokens is not None:
            ids = marked_ids(told.tokens)
        return ids, None if told is None else told.token_logprobs


class _Problem(msgspec.Struct):
    message: str = ""
    code: Any = None
    type: Any = None


class Refusal(msgspec.Struct):
    """Of a status that is none of success: the shapes that are seen."""

    error: _Problem | str | None = None
    message: str | None = None
    detail: Any = None

    @property
    def text(self) -> str:
        """What the server says."""
        if isinstance(self.error, _Problem) and self.error.message:
            return self.error.message
        found = (self.error, self.message, self.detail)
        return next((str(part) for part in found if part and not isinstance(part, _Problem)), "")

    @property
    def code(self) -> str:
        """Its name for the problem."""
        return f"{self.error.code} {self.error.type}" if isinstance(self.error, _Problem) else ""


def read(body: bytes, kind: type[T], host: str) -> T:
    """The answer of type `kind` in `body`.

    Raises:
        EngineError: it is not JSON, or of other types.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise EngineError(f"{host} does not answer as an OpenAI-compatible endpoint does: {told}") from None


def read_refusal(body: bytes) -> Refusal:
    """What the server says of a problem; the beginning of the body where that is no JSON of a known shape."""
    try:
        return msgspec.json.decode(body[: 1 << 16], type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal(message=body[: 1 << 16].decode("utf-8", "replace"))


def marked_ids(tokens: Sequence[str]) -> list[int] | None:
    """The ids in `token_id:17`, `token_id:4`, ...; `None` where the tokens are told as text."""
    if not tokens or not all(token.startswith(_MARK) and token[len(_MARK) :].isdecimal() for token in tokens):
        return None
    ids = [int(token[len(_MARK) :][:12]) for token in tokens]
    return ids if max(ids) < 1 << 31 else None


def checked_logprobs(logprobs: Sequence[float | None] | None, count: int, host: str) -> list[float] | None:
    """Log-probs of `count` tokens; `None` where there are none.

    Raises:
        EngineError: they are of another number, or none.
    """
    if logprobs is None:
        return None
    found = [value for value in logprobs if value is not None and math.isfinite(value) and value <= _ABOVE]
    if len(found) != count or len(logprobs) != count:
        raise EngineError(
            f"{host} answers with {count} tokens and {len(logprobs)} log-probs, {len(found)} of them sound"
        )
    return [min(value, 0.0) for value in found]
