"""Which model an API agent is and where: `openai:MODEL@URL` taken apart and checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from palaestra.errors import ConfigError

PREFIX = "openai:"
"""What a reference to such an agent begins with."""
DEFAULT_URL = "https://api.openai.com/v1"
"""Where a model is that comes without a URL."""

_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Address:
    """A model of an endpoint."""

    model: str
    """As the endpoint calls it."""
    url: str
    """Of the endpoint, up to and with its version: `http://127.0.0.1:8000/v1`. No slash at the end."""

    @property
    def host(self) -> str:
        """Name or address, with the port where one is given."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """Whether only this machine can be there."""
        name = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name.lower() == "localhost"

    @property
    def is_confidential(self) -> bool:
        """Whether nobody on the way there can read along."""
        return self.url.startswith("https://") or self.is_local

    def __str__(self) -> str:
        return f"{PREFIX}{self.model}@{self.url}"


def is_api(reference: str) -> bool:
    """Whether `reference` means a model behind an endpoint."""
    return reference.startswith(PREFIX)


def parse_address(reference: str) -> Address:
    """The address in `openai:MODEL@URL` or `openai:MODEL`. Without a path the URL gets `/v1`.

    Raises:
        ConfigError: it is no such reference, or the URL holds what does not belong into it.
    """
    rest = reference.removeprefix(PREFIX)
    head = reference.partition("://")[0][:80]  # what follows may hold a password
    shown = f"{head!r} is not {PREFIX}MODEL@URL, as in {PREFIX}my-model@http://127.0.0.1:8000/v1"
    if not is_api(reference) or not rest.isprintable() or " " in rest or len(rest) > _LONGEST:
        raise ConfigError(shown)
    found = re.search("@(?=https?://)", rest)
    model, url = (rest[: found.start()], rest[found.end() :]) if found else (rest, DEFAULT_URL)
    if "://" in model or (not found and "@" in model[1:]):
        raise ConfigError(f"{shown}: the URL begins with http:// or https://")
    if not model:
        raise ConfigError(shown)
    return Address(model, _normal(url))


def _normal(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named, parts = False, SplitResult("", "", "", "", "")
    if not named:
        raise ConfigError("the address of the endpoint names no host, or an impossible port")
    if "@" in parts.netloc:
        raise ConfigError("the address of the endpoint holds a user name or password; put the key into the environment")
    if parts.query or parts.fragment:
        raise ConfigError(f"leave everything from ? or # on out of the address {parts.scheme}://{parts.netloc}")
    path = parts.path.rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
