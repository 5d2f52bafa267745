"""Which taskset is played, and with which settings: what a task's `params` and the environment's arguments say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from palaestra.errors import DataError

PLACE = "verifiers==0.4.0"
"""What pip installs into the interpreter."""
SUPPORTED = "0.4"
EXAMPLE = "sums-taskset"
"""What is played where none is named."""
MOST_ROWS = 100_000
"""Rows of a taskset that are looked at; some have no end."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A taskset, and how it is played."""

    taskset: str = EXAMPLE
    """Its id: the name of the module that exports it."""
    env: str = ""
    """Id of the environment that plays it; empty for the taskset's own, or a single reply."""
    args: dict[str, Any] = {}
    """Settings of the taskset's config."""
    env_args: dict[str, Any] = {}
    """Settings of the environment's config."""
    split: str = "train"
    """Given to the taskset where its config has a `split`; else rows are divided by a hash of what they say."""
    path: str = ""
    """Folders to look for modules in, as in `PYTHONPATH`."""

    @property
    def key(self) -> bytes:
        """The same for equal choices."""
        return msgspec.json.encode(self, order="deterministic")


def chosen(params: Mapping[str, Any], otherwise: Chosen) -> Chosen:
    """`otherwise`, changed as `params` say.

    Raises:
        DataError: one of them is of another kind.
    """
    known = {name: params[name] for name in Chosen.__struct_fields__ if name in params}
    try:
        return msgspec.convert({**msgspec.structs.asdict(otherwise), **known}, Chosen)
    except (msgspec.ValidationError, TypeError) as error:
        raise DataError(f"not a task of a verifiers taskset: {error}") from None
