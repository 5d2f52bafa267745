"""Where the code of agents runs, by name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.errors import EnvError

NOWHERE = "none"
_BACKENDS = ("bubblewrap", "docker", "remote")


class Where(msgspec.Struct, frozen=True):
    """A back end of sandboxes, or `none`: this machine, with limits only, and Python only."""

    name: str = "bubblewrap"
    """`bubblewrap`, `docker`, `remote` or `none`."""
    image: str = ""
    """Of the back end; empty with bubblewrap: what there is on this machine."""
    settings: dict[str, Any] = {}
    """Of the back end, see `open_backend`."""

    @property
    def here(self) -> bool:
        """Whether it has the interpreter and the packages of this process."""
        return self.name in ("bubblewrap", NOWHERE) and not self.image

    @property
    def local(self) -> bool:
        """Whether it uses the processors of this machine."""
        return self.name != "remote"


def find_where(name: str, image: str = "", settings: Mapping[str, Any] | None = None) -> Where:
    """The place of that name, if there can be one here.

    Raises:
        EnvError: there is no such place; the message says how to get one.
    """
    if name not in (*_BACKENDS, NOWHERE):
        raise EnvError(f"sandbox is {', '.join(_BACKENDS)} or {NOWHERE}, not {name!r}")
    if name == "bubblewrap" and shutil.which("bwrap") is None:
        raise EnvError(
            "the code of agents runs in bubblewrap, which is not installed (on Debian: apt-get install bubblewrap); "
            "sandbox='docker' takes a Docker engine, sandbox='none' (or PALAESTRA_SANDBOX=none) only limits: code can "
            "then do all that you can"
        )
    return Where(name, image, dict(settings or {}))
