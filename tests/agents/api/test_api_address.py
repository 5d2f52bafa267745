"""References to models behind endpoints, and the keys for them."""

import pickle
import traceback

import pytest

from palaestra.agents.engines.openai.address import DEFAULT_URL, parse_address
from palaestra.agents.engines.openai.key import HIDDEN, NO_KEY, read_key
from palaestra.errors import ConfigError

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("reference", "model", "url"),
    [
        ("openai:gpt-5", "gpt-5", DEFAULT_URL),
        ("openai:org/Model-1.5B@http://127.0.0.1:8000/v1", "org/Model-1.5B", "http://127.0.0.1:8000/v1"),
        ("openai:m@http://localhost:8000", "m", "http://localhost:8000/v1"),
        ("openai:m@http://localhost:8000/", "m", "http://localhost:8000/v1"),
        ("openai:m@https://h/api/v2/", "m", "https://h/api/v2"),
        ("openai:m@https://h/v1/chat/completions", "m", "https://h/v1"),
        ("openai:@cf/meta/llama@https://h/v1", "@cf/meta/llama", "https://h/v1"),
        ("openai:/models/a@b@http://[::1]:80/v1", "/models/a@b", "http://[::1]:80/v1"),
    ],
)
def test_references(reference: str, model: str, url: str) -> None:
    address = parse_address(reference)
    assert (address.model, address.url) == (model, url)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("openai:", "is not openai:MODEL@URL"),
        ("openai: m", "is not openai:MODEL@URL"),
        ("gpt-5", "is not openai:MODEL@URL"),
        ("openai:m@ftp://h", "begins with http"),
        ("openai:m@localhost:8000", "begins with http"),
        ("openai:m@http://", "names no host"),
        ("openai:m@http://h:99999", "impossible port"),
        (f"openai:m@http://user:{KEY}@h/v1", "user name or password"),
        (f"openai:m@http://h/v1?key={KEY}", "leave everything from ?"),
        ("openai:" + "m" * 5000, "is not openai:MODEL@URL"),
    ],
)
def test_what_is_no_reference_is_told_without_what_might_be_a_key(reference: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_address(reference)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variable", "sent"),
    [
        ("https://api.openai.com/v1", "", True),
        ("http://127.0.0.1:8000/v1", "", True),
        ("http://localhost:1/v1", "", True),
        ("http://gpu-box:8000/v1", "", False),
        ("http://127.0.0.1.evil.example/v1", "", False),
        ("http://gpu-box:8000/v1", "OPENAI_API_KEY", True),
    ],
)
def test_a_key_goes_unasked_only_where_nobody_reads_along(
    url: str, variable: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = read_key(parse_address(f"openai:m@{url}"), variable)
    assert key.headers == ({"Authorization": f"Bearer {KEY}"} if sent else {})


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key(parse_address("openai:m")) is NO_KEY
    assert (NO_KEY.headers, NO_KEY.hide("text")) == ({}, "text")


@pytest.mark.parametrize("value", ["", "  ", "abc", "two words", "line\nbreak", "schlüssel"])
def test_what_is_no_key_is_told_but_not_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        read_key(parse_address("openai:m"), "MY_KEY")
    assert not value.strip() or value not in str(caught.value)


def test_a_key_neither_prints_nor_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    key = read_key(parse_address("openai:m"))
    assert KEY not in f"{key} {key!r}"
    assert key.hide(f"you sent {KEY}!") == f"you sent {HIDDEN}!"
    with pytest.raises(TypeError, match="not written anywhere") as caught:
        pickle.dumps(key)
    assert KEY not in "".join(traceback.format_exception(caught.value))
