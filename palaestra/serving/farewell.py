"""Why there is no connection to a server, or no longer one, and what to do about it."""

from __future__ import annotations

import aiohttp

from palaestra.serving.door import TOKEN_VARIABLE


def farewell(message: aiohttp.WSMessage, server: str) -> str:
    """Why a connection ended, by the last message of it; `server` is the command that was at its other end."""
    if message.type is aiohttp.WSMsgType.ERROR:
        return f"the connection broke: {message.data}"
    if message.type is aiohttp.WSMsgType.CLOSE and message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        return f"a message was larger than the server allows; raise {server} --max-message"
    if message.type is aiohttp.WSMsgType.CLOSE:
        return f"the server ended the session: {message.extra or f'code {message.data}'}"
    if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
        return f"the connection broke; is {server} still running there?"
    return "it sent what nobody asked; is it a Palaestra server of this version?"


def unreachable(url: str, error: Exception, server: str) -> str:
    """Why no connection came about; `server` is the command that should run there."""
    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 401:
        return f"{url} refuses the token: set {TOKEN_VARIABLE} to the one that the server was started with"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"{url} does not let this program in (HTTP {error.status}); is it {server}?"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return f"cannot use {url!r}: {error}; write http://host:port"
    return f"cannot reach {url}: {error}; is {server} running there?"
