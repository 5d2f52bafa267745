"""Requests to one endpoint: paced, sent again where that helps, counted, and read as typed answers."""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Any, NamedTuple, TypeVar

from palaestra.agents.engines.base import ContextFullError
from palaestra.agents.engines.openai.address import Address
from palaestra.agents.engines.openai.answers import ChatAnswer, TextAnswer, read, read_refusal
from palaestra.agents.engines.openai.connection import Answer, Connection, Unreachable, shown
from palaestra.agents.engines.openai.dialect import DIALECTS, MALFORMED, Ask, Dialect
from palaestra.agents.engines.openai.key import NO_KEY, VARIABLE, ApiKey
from palaestra.agents.engines.openai.limits import ApiLimits, Prices
from palaestra.agents.engines.openai.pacing import Entry, Pace
from palaestra.agents.engines.openai.retrying import AGAIN, asked_wait, backoff
from palaestra.agents.engines.openai.usage import Usage
from palaestra.errors import EngineError

_AnswerT = TypeVar("_AnswerT", ChatAnswer, TextAnswer)

_FULL = re.compile(
    r"context.{0,20}(length|window|size)|(prompt|input).{0,40}(too long|longer than)|max_model_len", re.IGNORECASE
)
"""How endpoints say that a prompt is too long for the model."""
_BROKE = re.compile(r"insufficient_quota|billing", re.IGNORECASE)
"""Codes of refusals that no waiting mends, although their status says so."""
LOST_SECONDS = 30.0
"""How long an endpoint that never answered is not asked again, so that hundreds of episodes need not wait in turn."""


class _Malformed(EngineError):
    """The request was refused as it is."""


class _Refused(NamedTuple):
    error: EngineError
    again: bool
    wait: float | None
    """Seconds that the endpoint asks for."""


class Client:
    """Asks one model of one endpoint, from one event loop."""

    def __init__(
        self, address: Address, *, key: ApiKey = NO_KEY, limits: ApiLimits | None = None, prices: Prices | None = None
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: model and endpoint.
            key: sent with every request.
            limits: `ApiLimits()` if not given.
            prices: for the cost in a `Usage`.
        """
        self.address, self.limits, self.prices = address, limits or ApiLimits(), prices
        self._key = key
        self._connection = Connection(address, key, self.limits)
        self._pace = Pace(self.limits)
        self._places = asyncio.Semaphore(self.limits.concurrency)
        self._dialect: Dialect | None = None
        self._settling = asyncio.Lock()
        self._answered = False
        self._lost: tuple[float, Unreachable] | None = None

    async def chat(self, ask: Ask, usage: Usage) -> ChatAnswer:
        """The answer of `/chat/completions`, counted in `usage`.

        Raises:
            ContextFullError: the prompt is too long for the model.
            EngineError: the endpoint cannot be reached, refuses, or does not answer as it should.
        """
        return await self._ask("chat/completions", ask, ChatAnswer, usage)

    async def text(self, ask: Ask, usage: Usage) -> TextAnswer:
        """The answer of `/completions`; see `chat`."""
        return await self._ask("completions", ask, TextAnswer, usage)

    def hide(self, text: str) -> str:
        """What the endpoint wrote, without the key if it repeats that."""
        return self._key.hide(text)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _ask(self, path: str, ask: Ask, kind: type[_AnswerT], usage: Usage) -> _AnswerT:
        if self._dialect is None:
            async with self._settling:
                if self._dialect is None:
                    return await self._settle(path, ask, kind, usage)
        assert self._dialect is not None
        return await self._said(path, ask, self._dialect, kind, usage)

    async def _settle(self, path: str, ask: Ask, kind: type[_AnswerT], usage: Usage) -> _AnswerT:
        """The first answer, in the richest dialect that is understood."""
        refusal: EngineError | None = None
        for dialect in DIALECTS:
            try:
                answer = await self._said(path, ask, dialect, kind, usage)
            except _Malformed as error:
                refusal = error
                continue
            self._dialect = dialect
            return answer
        assert refusal is not None
        raise refusal

    async def _said(self, path: str, ask: Ask, dialect: Dialect, kind: type[_AnswerT], usage: Usage) -> _AnswerT:
        if ask.top_k and not dialect.tokens:
            raise EngineError(f"{self.address.host} takes no top-k; leave it out")
        body, entry = await self._sent(path, ask.payload(self.address.model, dialect), ask, usage)
        answer = read(body, kind, self.address.host)
        self._count(answer, entry, usage)
        return answer

    async def _sent(self, path: str, payload: dict[str, Any], ask: Ask, usage: Usage) -> tuple[bytes, Entry]:
        """The body of the answer, after as many tries as it takes and `limits` allow."""
        draw = Random(ask.seed)
        for attempt in range(self.limits.retries + 1):
            async with self._places:
                entry = await self._pace.turn(ask.tokens)
                answer = await self._tried(path, payload)
            if isinstance(answer, Answer):
                return answer.body, entry
            entry.amount = 0
            if not answer.again or attempt == self.limits.retries:
                tries = f" ({attempt + 1} tries)" if attempt else ""
                raise type(answer.error)(f"{answer.error}{tries}")
            wait = self._wait(answer, attempt, draw)
            usage.retries += 1
            await asyncio.sleep(wait)
        raise AssertionError("the last try either answers or raises")

    async def _tried(self, path: str, payload: dict[str, Any]) -> Answer | _Refused:
        """One try: a good answer, or why there is none."""
        now = asyncio.get_running_loop().time()
        if self._lost is not None and now < self._lost[0]:
            return _Refused(self._lost[1], False, None)
        try:
            answer = await self._connection.ask("POST", path, payload)
        except Unreachable as error:
            if not self._answered:
                self._lost = asyncio.get_running_loop().time() + LOST_SECONDS, error
            return _Refused(error, self._answered, None)
        self._answered, self._lost = True, None
        return answer if answer.status == 200 else self._refusal(answer)

    def _refusal(self, answer: Answer) -> _Refused:
        told, address = read_refusal(answer.body), self.address
        text = shown(self.hide(told.text)) or "without a reason"
        if answer.status in (400, 413, 422) and _FULL.search(f"{told.text[:2000]} {told.code}"):
            return _Refused(ContextFullError(f"{address.host} says that the prompt is too long: {text}"), False, None)
        if answer.status in MALFORMED:
            return _Refused(_Malformed(f"{address.host} refuses the request: {text}"), False, None)
        if answer.status in (401, 403):
            return _Refused(EngineError(f"{address.host} {self._who()}: {text}"), False, None)
        if answer.status == 404:
            return _Refused(EngineError(f"{address.host} does not have {address.model!r}: {text}"), False, None)
        again = answer.status in AGAIN and not _BROKE.search(told.code)
        error = EngineError(f"{address.host} answers with status {answer.status}: {text}")
        return _Refused(error, again, asked_wait(answer.headers))

    def _who(self) -> str:
        if self._key.headers:
            return f"does not accept the API key in {self._key.source}"
        return f"wants an API key, and none was sent (it comes from {VARIABLE}, or from the variable that you name)"

    def _wait(self, refused: _Refused, attempt: int, draw: Random) -> float:
        """Seconds until the next try. What the endpoint asks for holds for everybody."""
        longest = self.limits.longest_wait
        wait = backoff(attempt, longest, draw)
        if refused.wait is None:
            return wait
        if refused.wait > longest:
            raise EngineError(f"{refused.error}; it asks to wait {refused.wait:.0f} s, and {longest:g} s is the most")
        self._pace.hold(refused.wait)
        return max(wait, refused.wait)

    def _count(self, answer: ChatAnswer | TextAnswer, entry: Entry, usage: Usage) -> None:
        counts = answer.usage
        if counts is None:
            usage.uncounted += 1
            usage.enter(0, 0, len(answer.sampled[0] or ()), self.prices)
            return
        completion = counts.completion_tokens or 0
        entry.amount = counts.prompt_tokens + completion
        usage.enter(counts.prompt_tokens, counts.cached, completion, self.prices)
