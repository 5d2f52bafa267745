"""What the benchmarks of sandboxes share: where there is no engine they say so, and stop nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from palaestra.errors import MissingExtraError, SandboxDaemonError, SandboxImageError


@contextmanager
def needing_an_engine(name: str) -> Iterator[None]:
    """Where a benchmark cannot run at all on this machine, print why in place of its last line."""
    try:
        yield
    except (MissingExtraError, SandboxDaemonError, SandboxImageError) as error:
        print(json.dumps({"name": name, "left_out": str(error)}))
