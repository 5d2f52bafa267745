"""The environment's proxies, and the logins in ~/.netrc, which are for others."""

import asyncio
import base64
from pathlib import Path

import pytest
from support.endpoints import Asked, Endpoint, chat_body, endpoint, saying

from palaestra.agents.engines.openai.address import parse_address
from palaestra.agents.engines.openai.connection import Connection
from palaestra.agents.engines.openai.key import NO_KEY, ApiKey
from palaestra.agents.engines.openai.limits import ApiLimits

KEY = ApiKey("sk-0123456789", "A_KEY")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies yet, and a login for every host."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


def asked(url: str, served: Endpoint, key: ApiKey = NO_KEY) -> Asked:
    async def go() -> None:
        connection = Connection(parse_address(f"openai:m@{url}"), key, ApiLimits(seconds=20.0))
        try:
            assert (await connection.ask("POST", "chat/completions", chat_body())).status == 200
        finally:
            await connection.close()

    asyncio.run(go())
    return served.asked[-1]


@pytest.mark.parametrize("key", [NO_KEY, KEY])
def test_logins_of_netrc_are_not_sent(key: ApiKey) -> None:
    with endpoint(saying("hi")) as served:
        url = served.url.replace("127.0.0.1", "0.0.0.0")  # the same place, but for all we know another machine's
        assert asked(url, served, key).headers.get("Authorization") == key.headers.get("Authorization")


def test_the_environments_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(saying("hi")) as served:
        monkeypatch.setenv("http_proxy", served.url.removesuffix("/v1").replace("//", "//bob:pw@"))
        came = asked("http://models.test/v1", served)
    assert came.headers["Host"] == "models.test"
    assert came.headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'bob:pw').decode()}"
    assert "Authorization" not in came.headers


def test_hosts_that_want_no_proxy_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with endpoint(saying("hi")) as served:
        assert asked(served.url, served)
        monkeypatch.setenv("no_proxy", "0.0.0.0")
        assert asked(served.url.replace("127.0.0.1", "0.0.0.0"), served)


def test_the_key_across_the_cut_of_a_reason_is_not_shown() -> None:
    connection = Connection(parse_address("openai:m@http://127.0.0.1:9/v1"), KEY, ApiLimits())
    assert "sk-" not in connection._told(ValueError(f"{'x' * 290}sk-0123456789"))
