"""From a task's params to the instance that they name, by format."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from palaestra.envs.swe.instance import Instance
from palaestra.errors import DataError, nearest

_READERS = {
    "releases": "palaestra.envs.swe.releases",
    "harbor": "palaestra.envs.swe.harbor",
    "swe-bench": "palaestra.envs.swe.swebench",
}
"""Format -> module with `read_instance(params) -> Instance`."""


def read_instance(params: Mapping[str, Any]) -> Instance:
    """The instance that a task's `params` name: `format`, and what that format's reader wants.

    It may read, unpack and (releases) download; call it outside of the event loop.

    Raises:
        DataError: no such format or instance, or its data is damaged or cannot be had.
    """
    name = params.get("format")
    if not isinstance(name, str) or name not in _READERS:
        hint = nearest(str(name)[:80], _READERS)
        raise DataError(
            f"format of a software-engineering task is one of {', '.join(_READERS)}, not {str(name)[:80]!r}"
            + (f"; did you mean {hint[0]}?" if hint else "")
        )
    reader: Callable[[Mapping[str, Any]], Instance] = importlib.import_module(_READERS[name]).read_instance
    return reader(params)
