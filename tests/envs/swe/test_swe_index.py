"""Files from a package index: pinned, kept, checked at every reading, and clear errors without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.package_index import Files, sdist, serving

from palaestra.envs.swe import index
from palaestra.envs.swe.index import Pin, UnreachableError
from palaestra.errors import DataError, PalaestraError

NAME = "alpha-1.0.tar.gz"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PIP_CERT", raising=False)
    found = sdist("alpha", "1.0", {"a.py": "x = 1\n"})
    with serving(found) as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        yield found


def pinned(served: Files) -> Pin:
    return Pin("alpha", NAME, hashlib.sha256(served[NAME]).hexdigest())


def test_a_file_is_downloaded_once(served: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    pin, told = pinned(served), []
    assert index.missing([pin]) == [pin]
    [place] = index.fetch_all([pin], lambda *at: told.append(at))
    assert place.read_bytes() == served[NAME]
    assert told == [(0, 1, NAME)]
    assert index.missing([pin]) == []
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert index.fetch_all([pin], lambda *at: told.append(at)) == [place]
    assert len(told) == 1


def test_the_listing_has_every_file_and_its_hash(served: Files) -> None:
    assert {name: sha for name, (_, sha) in index.listing("Alpha").items()} == {NAME: pinned(served).sha256}


def test_many_who_want_a_file_at_once_get_it(served: Files) -> None:
    pin = pinned(served)
    with ThreadPoolExecutor(8) as threads:
        places = set(threads.map(index.fetch, [pin] * 16))
    [place] = places
    assert place.read_bytes() == served[NAME]
    assert [path.name for path in place.parent.iterdir()] == [NAME]


def test_other_bytes_are_refused(served: Files) -> None:
    pin = pinned(served)
    served[NAME] += b"more"
    with pytest.raises(DataError, match="somebody replaced it"):
        index.fetch(pin)
    assert index.missing([pin]) == [pin]


def test_what_was_changed_in_the_cache_is_downloaded_again(served: Files) -> None:
    place = index.fetch(pinned(served))
    place.write_bytes(b"changed")
    assert index.fetch(pinned(served)).read_bytes() == served[NAME]


def test_without_a_network_the_error_says_where_to_put_the_file(served: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    pin = pinned(served)
    with pytest.raises(UnreachableError, match="put the file into (.*); palaestra swe fetch") as caught:
        index.fetch(pin)
    assert str(caught.value).count(NAME) == 1
    assert "\n" not in str(caught.value)
    place = index.folder() / pin.sha256[:16] / NAME
    assert str(place.parent) in str(caught.value)
    place.parent.mkdir(parents=True)
    place.write_bytes(served[NAME])
    assert index.fetch(pin) == place


def test_a_project_or_a_file_that_is_not_there(served: Files) -> None:
    with pytest.raises(DataError, match="Not Found"):
        index.fetch(Pin("beta", "beta-1.0.tar.gz", "0" * 64))
    with pytest.raises(DataError, match=r"has no alpha-2\.0\.tar\.gz"):
        index.fetch(Pin("alpha", "alpha-2.0.tar.gz", "0" * 64))


def test_a_file_that_is_too_large_is_not_read_to_its_end(served: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MOST_BYTES", 10)
    with pytest.raises(DataError, match="limit"):
        index.fetch(pinned(served))


def test_an_address_that_is_none(served: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "file:///etc")
    with pytest.raises(DataError, match="PIP_INDEX_URL"):
        index.listing("alpha")


def test_a_cache_that_cannot_be_written(served: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "file"))
    with pytest.raises(PalaestraError, match="cannot write"):
        index.fetch(pinned(served))
