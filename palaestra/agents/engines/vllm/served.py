"""vLLM behind HTTP: a server of ours, or one at a given address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from palaestra.agents.engines.vllm.server import VLLMServer
from palaestra.agents.engines.vllm.transport import Adapter, Raw, Span
from palaestra.errors import EngineError, require

START_SECONDS = 600.0
"""How long a server may take until it serves: large models load for minutes."""
POLL_SECONDS = 0.25
HEALTH_SECONDS = 10.0
"""How long a server may take to say whether it serves."""


class ServedTransport:
    """`vllm serve` by its token endpoint, and by those of its development mode."""

    def __init__(self, url: str = "", *, key: str = "", server: VLLMServer | None = None) -> None:
        """Args:
        url: Where it is.
        key: What it wants as a bearer token; empty for nothing.
        server: One of ours, to be started and ended with this, in place of `url` and `key`.
        """
        self._url, self._key, self._server = url.rstrip("/"), key, server
        self._http: Any = None
        self._model = ""
        self.context_length = 0

    async def start(self) -> None:
        """As `Transport.start`."""
        require("aiohttp", "remote")
        import aiohttp

        if self._server is not None:
            await self._server.start()
            self._url, self._key = self._server.url, self._server.key
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # Completions take as long as they take; a server that has gone closes the connection.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        # A connection each: the server closes idle ones after seconds, and who computes meanwhile does not notice.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._http = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        try:
            await self._wait()
            self._model, self.context_length = _card(await self._get("/v1/models"), self._url)
        except BaseException:
            await self.close()
            raise

    async def sample(self, prompt: list[int], params: Mapping[str, Any], *, salt: str, adapter: Adapter | None) -> Raw:
        """As `Transport.sample`."""
        body = {
            "token_ids": prompt,
            "sampling_params": dict(params),
            "cache_salt": salt,
            "model": adapter.name if adapter else self._model,
            "stream": False,
        }
        told = await self._post("/inference/v1/generate", body)
        choice = told["choices"][0]
        content = (choice.get("logprobs") or {}).get("content") or []
        spans = [Span(span["version"], span["start"], span["end"]) for span in choice.get("weight_versions") or []]
        return Raw(
            ids=choice["token_ids"] or [],
            logprobs=[float(entry["logprob"]) for entry in content],
            finish=choice["finish_reason"] or "nothing said",
            spans=spans,
        )

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """As `Transport.call`."""
        results: list[Any] = (await self._post("/collective_rpc", {"method": method, "args": arguments}))["results"]
        return results

    async def pause(self) -> None:
        """As `Transport.pause`."""
        await self._post("/pause?mode=keep", {})
        await self._post("/reset_prefix_cache?reset_running_requests=true", {})

    async def resume(self) -> None:
        """As `Transport.resume`."""
        await self._post("/resume", {})

    async def label(self, label: str) -> None:
        """As `Transport.label`."""
        await self._post("/update_weight_version", {"new_version": label})

    async def transfer(self, step: str, body: Mapping[str, Any]) -> None:
        """As `Transport.transfer`."""
        await self._post(f"/{step}", body)

    async def add_adapter(self, adapter: Adapter) -> None:
        """As `Transport.add_adapter`."""
        await self._post("/v1/load_lora_adapter", {"lora_name": adapter.name, "lora_path": str(adapter.folder)})

    async def remove_adapter(self, adapter: Adapter) -> None:
        """As `Transport.remove_adapter`."""
        await self._post("/v1/unload_lora_adapter", {"lora_name": adapter.name})

    async def close(self) -> None:
        """As `Transport.close`."""
        if self._http is not None:
            await self._http.close()
        if self._server is not None:
            await self._server.stop()

    async def _wait(self) -> None:
        """Until it serves; a server of ours that ended meanwhile never will."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._server is not None and self._server.ended is not None:
                raise EngineError(f"vLLM does not start: {self._server.last_words()}; its log is {self._server.log}")
            try:
                async with self._http.get(f"{self._url}/health", timeout=timeout) as answer:
                    if answer.status == 200:
                        return
                    problem = f"it answers {answer.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = str(error) or "it does not answer"
            if self._server is None or time.monotonic() > deadline:
                raise EngineError(f"there is no vLLM server at {self._url}: {problem}")
            await asyncio.sleep(POLL_SECONDS)

    async def _get(self, path: str) -> Any:
        return await self._ask("GET", path, None)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._ask("POST", path, body)

    async def _ask(self, verb: str, path: str, body: Mapping[str, Any] | None) -> Any:
        import aiohttp

        try:
            async with self._http.request(verb, self._url + path, json=body) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise EngineError(f"vLLM refuses {path.partition('?')[0]}: {answer.status} {_reason(text)}")
                return await answer.json() if "json" in answer.content_type else text
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            gone = self._server is not None and self._server.ended is not None
            more = f"; it ended: {self._server.last_words()}" if gone and self._server is not None else ""
            raise EngineError(f"vLLM at {self._url} does not answer: {error or type(error).__name__}{more}") from error


def _card(told: Any, url: str) -> tuple[str, int]:
    """Name and context length of the first model."""
    try:
        card = told["data"][0]
        return str(card["id"]), int(card["max_model_len"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(f"the server at {url} does not answer as vLLM does") from error


def _reason(text: str) -> str:
    """The first line that says something, of a body that may be JSON."""
    return " ".join(text.split())[:300]
