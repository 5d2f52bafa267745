"""Back ends by name: `docker`, `bubblewrap`, `remote`, `scripted`."""

from __future__ import annotations

import importlib
from typing import Any

from palaestra.errors import UnknownNameError
from palaestra.sandboxes.core import Backend

_BACKENDS = {
    "docker": "palaestra.sandboxes.docker.backend:DockerBackend",
    "bubblewrap": "palaestra.sandboxes.bubblewrap:BubblewrapBackend",
    "remote": "palaestra.sandboxes.remote.client:RemoteBackend",
    "scripted": "palaestra.sandboxes.scripted:ScriptedBackend",
}


def open_backend(name: str, **settings: Any) -> Backend:
    """A back end. It starts nothing yet, and is closed by `async with` or `close`.

    Args:
        name: one of `docker`, `bubblewrap`, `remote` and `scripted`.
        settings: of the back end.

    Raises:
        UnknownNameError: there is no such back end.
        MissingExtraError: what it needs is not installed.
    """
    if name not in _BACKENDS:
        raise UnknownNameError("sandbox back end", name, _BACKENDS)
    module, _, attribute = _BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)(**settings)
    return backend
