"""The API key: read from the environment, sent in one header, and shown nowhere."""

from __future__ import annotations

import os
from typing import NoReturn

from palaestra.agents.engines.openai.address import Address
from palaestra.errors import ConfigError

VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds the key where no other is named."""
HIDDEN = "[key]"
"""What stands in place of a key that something else repeated."""


class ApiKey:
    """A secret that neither prints, nor pickles, nor compares. `str()` of it says where it comes from."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value, self.source = value, source

    def __repr__(self) -> str:
        return f"ApiKey(from {self.source})" if self._value else "ApiKey(none)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not written anywhere; read it from the environment again")

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hide(self, text: str) -> str:
        """`text` with `HIDDEN` wherever it repeats the key."""
        return text.replace(self._value, HIDDEN) if self._value else text


NO_KEY = ApiKey("", "nowhere")


def read_key(address: Address, variable: str = "") -> ApiKey:
    """The key for an endpoint.

    Args:
        address: of the endpoint.
        variable: that holds it. Not given: `OPENAI_API_KEY`, and no key where that is not set, or where others could
            read it on the way.

    Raises:
        ConfigError: the variable that was named is not set, or what it holds is no key.
    """
    value = os.environ.get(variable or VARIABLE, "").strip()
    if variable and not value:
        raise ConfigError(f"the environment variable {variable}, which should hold the API key, is not set")
    if not value or (not variable and not address.is_confidential):
        return NO_KEY
    if len(value) < _SHORTEST or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"what the environment variable {variable or VARIABLE} holds cannot be an API key")
    return ApiKey(value, variable or VARIABLE)


_SHORTEST = 4
"""Fewer characters would hide half of every text."""
