"""Who may talk to a vLLM server that we start: whoever has its key, whatever the path.

vLLM's own key leaves the endpoints open that change weights and call workers.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY = "PALAESTRA_VLLM_KEY"
"""Environment variable of the server that holds it, where a list of processes does not show it."""

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]


class Door:
    """ASGI middleware: 401 to whoever does not send the key."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._key = _digest(os.environ[KEY])

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        """Let the request through, or answer it."""
        if scope["type"] not in ("http", "websocket") or self._knows(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"this server wants its key"})

    def _knows(self, scope: _Scope) -> bool:
        told = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, key = told.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(_digest(key), self._key)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
