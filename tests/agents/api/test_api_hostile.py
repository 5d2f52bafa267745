"""Endpoints that mean harm, or are broken: each ends in one clear line, within bounds of time and memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.endpoints import Asked, Handler, chat_body, endpoint

from palaestra.agents.api.agent import ApiAgent
from palaestra.agents.api.formats import FORMATS
from palaestra.agents.api.reply import read_reply
from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.openai.address import parse_address
from palaestra.agents.engines.openai.answers import ChatAnswer, read
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.engine import OpenAIEngine
from palaestra.agents.engines.openai.limits import ApiLimits
from palaestra.errors import EngineError

INFO = {"admissible_commands": ["look", "go north"]}
HANDLERS: dict[str, tuple[Handler, str]] = {}


def hostile(told: str) -> Any:
    def keep(handler: Handler) -> Handler:
        HANDLERS[handler.__name__] = handler, told
        return handler

    return keep


async def streamed(asked: Asked, parts: Sequence[bytes] | None, pause: float = 0.0) -> web.StreamResponse:
    """The parts; without any, megabytes for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(asked.http)
    try:
        for part in iter(lambda: b" " * (1 << 20), b"") if parts is None else parts:
            await response.write(part)
            await asyncio.sleep(pause)
    except OSError:
        pass
    return response


@hostile("answers with more than 2,097,152 bytes")
async def a_body_without_end(asked: Asked) -> web.StreamResponse:
    return await streamed(asked, None)


@hostile("did not answer within 0.5 s")
async def a_drip(asked: Asked) -> web.StreamResponse:
    return await streamed(asked, [b" "] * 100_000, pause=0.05)


@hostile("did not answer within 0.5 s")
async def silence(asked: Asked) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


@hostile("compresses its answer")
async def a_bomb(asked: Asked) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b" " * (64 << 20)), headers={"Content-Encoding": "gzip"})


@hostile("cannot be reached")
async def headers_without_end(asked: Asked) -> web.StreamResponse:
    return web.Response(headers={"X-Long": "x" * 100_000})


@hostile("sends us to http://evil.example/ [31m, and keys are not carried around")
async def a_redirect(asked: Asked) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://evil.example/\t\x1b[31m".replace("\x1b", "\u00a0")})


@hostile("answers with status 500: without a reason")
async def an_error_in_control_characters(asked: Asked) -> web.StreamResponse:
    return web.json_response({"error": {"message": "\x1b\x00\r\n\t"}}, status=500)


@hostile("answers with status 500: AAAA")
async def an_error_of_a_megabyte(asked: Asked) -> web.StreamResponse:
    return web.Response(text="A" * (1 << 20), status=500)


@hostile("does not answer as an OpenAI-compatible endpoint does")
async def events_instead_of_json(asked: Asked) -> web.StreamResponse:
    return web.Response(text='data: {"choices": []}\n\ndata: [DONE]\n\n', content_type="text/event-stream")


@pytest.mark.parametrize("name", HANDLERS)
def test_each_is_told_in_a_line(name: str) -> None:
    handler, told = HANDLERS[name]

    async def go(url: str) -> None:
        limits = ApiLimits(seconds=0.5 if "0.5 s" in told else 20.0, longest_answer=2 << 20, retries=0)
        client = Client(parse_address(f"openai:m@{url}"), limits=limits)
        try:
            await ApiAgent(client).session(seed=0).act("You see a door.", INFO)
        finally:
            await client.close()

    with endpoint(handler) as served:
        tracemalloc.start()
        with pytest.raises(EngineError) as caught:
            asyncio.run(go(served.url))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    text = str(caught.value)
    assert told in text
    assert text.isprintable()
    assert len(text) < 600
    assert peak < 100 << 20


def test_a_redirect_is_never_followed() -> None:
    async def elsewhere(asked: Asked) -> web.StreamResponse:
        return web.json_response(chat_body())

    async def go(url: str) -> None:
        client = Client(parse_address(f"openai:m@{url}"))
        try:
            await ApiAgent(client).session(seed=0).act("You see a door.", INFO)
        finally:
            await client.close()

    with endpoint(elsewhere) as other:

        async def redirect(asked: Asked) -> web.StreamResponse:
            return web.Response(status=308, headers={"Location": other.url})

        with endpoint(redirect) as served, pytest.raises(EngineError, match="name that address"):
            asyncio.run(go(served.url))
        assert not other.asked


WRONG: list[Any] = [
    *("", "null", "[]", "{", "[" * 100_000, '"text"', "\x00", "{}", '{"choices": null}', '{"choices": []}'),
    {"choices": [{"message": "look"}]},
    {"choices": [{"message": {"content": 5}}]},
    {"choices": [{"message": {"content": ["look"]}}]},
    {"choices": [{"message": {"content": "a"}}] * 2},
    {**chat_body(), "usage": {"prompt_tokens": -1}},
    {**chat_body(), "usage": {"prompt_tokens": 1e300}},
    {**chat_body(), "usage": "many"},
    {**chat_body(), "prompt_token_ids": [1, -1]},
    {**chat_body(), "prompt_token_ids": [True]},
    {**chat_body(), "prompt_token_ids": [1.5]},
    {**chat_body(), "prompt_token_ids": [2**31]},
    chat_body(tool_calls=[{"function": {"name": "f"}}] * 1000),
    chat_body(tool_calls=[{"function": {"name": ["f"]}}]),
    '{"choices": [{"message": {"content": "\\ud800"}}]}',
]


@pytest.mark.parametrize("body", WRONG)
def test_what_is_no_answer(body: Any) -> None:
    raw = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(EngineError, match="does not answer as an OpenAI-compatible endpoint does") as caught:
        read(raw.encode("utf-8", "surrogatepass"), ChatAnswer, "h")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def sampled(ids: list[int], logprobs: Sequence[float | None], prompt: list[int]) -> dict[str, Any]:
    body = chat_body()
    told = {"content": [{"token": "x", "logprob": value} for value in logprobs]}
    body["choices"][0] |= {"token_ids": ids, "logprobs": told}
    return {**body, "prompt_token_ids": prompt}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (chat_body("x" * 100_000), "answers with 100,000 characters where 4 tokens were asked for"),
        (chat_body(tool_calls=[{"function": {"name": "f", "arguments": "x" * 100_000}}]), "characters where 4 tokens"),
        (sampled([1] * 5, [0.0] * 5, [1]), "answers with 5 tokens where 4 were asked for"),
        (sampled([1, 2], [-0.5], [1]), "answers with 2 tokens and 1 log-probs, 1 of them sound"),
        (sampled([1, 2], [-0.5, 0.5], [1]), "answers with 2 tokens and 2 log-probs, 1 of them sound"),
    ],
)
def test_what_does_not_fit_together(body: dict[str, Any], told: str) -> None:
    answer = msgspec.convert(body, ChatAnswer)
    with pytest.raises(EngineError, match=told):
        read_reply(answer, max_tokens=4, host="h", hide=str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "tool_calls", "function", "name", "arguments"])
            | st.sampled_from(["logprobs", "token_ids", "prompt_token_ids", "prompt_tokens", "finish_reason", "token"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(choice=JSON, rest=st.dictionaries(st.sampled_from(["usage", "prompt_token_ids", "error"]), JSON))
def test_any_json_is_an_answer_or_an_error_of_ours(choice: Any, rest: dict[str, Any]) -> None:
    raw = json.dumps({"choices": [choice], **rest}).encode()
    for make in FORMATS.values():
        actions = make()
        try:
            reply = read_reply(read(raw, ChatAnswer, "h"), max_tokens=4, host="h", hide=str)
        except EngineError:
            continue
        offer = actions.offer(INFO, [{"type": "function", "function": {"name": "f"}}])
        assert isinstance(actions.read(reply, offer).text, str)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"text": "a"}, "answers with no token ids where 1 to 4 were asked for"),
        ({"text": "a", "token_ids": []}, "answers with 0 token ids"),
        ({"text": "a", "token_ids": [1] * 5}, "answers with 5 token ids"),
        ({"text": "a", "token_ids": [1], "prompt_token_ids": [9]}, "continued another prompt than it was given"),
        ({"text": "a", "token_ids": [1], "logprobs": {"token_logprobs": [None]}}, "0 of them sound"),
    ],
)
def test_the_engine_takes_no_other_tokens(choice: dict[str, Any], told: str) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        return web.json_response({"choices": [choice]})

    async def go(url: str) -> None:
        engine = OpenAIEngine(Client(parse_address(f"openai:m@{url}")))
        try:
            await engine.generate(Request(prompt=[1, 2], sampling=SamplingParams(max_tokens=4)))
        finally:
            await engine.close()

    with endpoint(handler) as served, pytest.raises(EngineError, match=told):
        asyncio.run(go(served.url))
