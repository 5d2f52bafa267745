"""Endpoints on loopback, in a thread of their own: hostile ones, scripted ones, and one with a real model behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import LoadedModel

Handler = Callable[["Asked"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    http: web.Request
    number: int
    """How many came before."""


@dataclass
class Endpoint:
    """A server that runs."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    def agent(self, model: str = "m") -> str:
        return f"openai:{model}@{self.url}"


@contextmanager
def endpoint(handler: Handler) -> Iterator[Endpoint]:
    """Answer every request by `handler`, until the block ends."""
    served = Endpoint("")
    loop = asyncio.new_event_loop()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        asked = Asked(request.path, body, dict(request.headers), request, len(served.asked))
        served.asked.append(asked)
        return await handler(asked)

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def chat_body(text: str | None = "look", **more: Any) -> dict[str, Any]:
    """A plain answer of `/chat/completions`; `more` goes to its message."""
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}},
    }


def saying(*texts: str) -> Handler:
    """Say one text after the other, from the start again after the last."""

    async def handler(asked: Asked) -> web.StreamResponse:
        return web.json_response(chat_body(texts[asked.number % len(texts)]))

    return handler


def refusal(status: int, message: str, code: str = "", **headers: str) -> web.Response:
    problem = {"error": {"message": message, "code": code, "type": "t"}}
    return web.json_response(problem, status=status, headers=headers)


class ModelServer:
    """A real model that answers as `vllm serve` does: token ids, log-probs at temperature 1, chats by the template."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.engine: TorchEngine | None = None

    async def __call__(self, asked: Asked) -> web.StreamResponse:
        if asked.path.endswith("/chat/completions"):
            return await self._chat(asked.body)
        return await self._text(asked.body)

    async def _text(self, body: dict[str, Any]) -> web.StreamResponse:
        done = await self._sampled(body, body["prompt"], body["stop_token_ids"])
        choice = {
            "text": self._decoded(done.ids),
            "finish_reason": done.finish,
            "token_ids": done.ids,
            "prompt_token_ids": body["prompt"],
            "logprobs": {"token_logprobs": done.logprobs, "tokens": [str(i) for i in done.ids]},
        }
        return web.json_response({"choices": [choice], "usage": _usage(body["prompt"], done.ids)})

    async def _chat(self, body: dict[str, Any]) -> web.StreamResponse:
        tokenizer = self.loaded.tokenizer
        text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        prompt = tokenizer.encode(text, add_special_tokens=False)
        done = await self._sampled(body, prompt, [tokenizer.eos_token_id])
        choice = {
            "message": {"role": "assistant", "content": self._decoded(done.ids)},
            "finish_reason": done.finish,
            "token_ids": done.ids,
            "logprobs": {
                "content": [{"token": str(i), "logprob": lp} for i, lp in zip(done.ids, done.logprobs, strict=True)]
            },
        }
        return web.json_response({"choices": [choice], "prompt_token_ids": prompt, "usage": _usage(prompt, done.ids)})

    async def _sampled(self, body: dict[str, Any], prompt: Sequence[int], stop: Sequence[int]) -> Any:
        if self.engine is None:
            self.engine = TorchEngine(self.loaded.model, slots=8)
        if len(prompt) + body["max_tokens"] > self.engine.context_length:
            length = self.engine.context_length
            raise web.HTTPBadRequest(
                text=json.dumps({"error": {"message": f"This model's maximum context length is {length} tokens"}}),
                content_type="application/json",
            )
        sampling = SamplingParams(
            temperature=body["temperature"], max_tokens=body["max_tokens"], stop_ids=tuple(stop), seed=body["seed"]
        )
        return await self.engine.generate(Request(prompt=prompt, sampling=sampling))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.loaded.tokenizer.decode(ids, skip_special_tokens=True))


def _usage(prompt: Sequence[int], ids: Sequence[int]) -> dict[str, int]:
    return {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}
