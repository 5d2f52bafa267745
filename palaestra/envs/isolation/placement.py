"""Where an environment runs and what it may use: a property of its registration."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal, get_args

import msgspec

from palaestra.errors import EnvError

Kind = Literal["inline", "thread", "process", "interpreter", "remote"]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Deadlines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Most seconds of each phase, enforced from outside: what does not answer in time is killed."""

    queue: Seconds | None = None
    """Wait for a free place, where `concurrency` limits them; `None` for no limit."""
    create: Seconds = 120.0
    """Start the worker, import the environment's code, make it. An interpreter that is yet to be built has no limit."""
    reset: Seconds = 120.0
    step: Seconds = 120.0
    """Also of `oracle` and `render`."""
    verify: Seconds = 600.0
    fork: Seconds = 120.0
    close: Seconds = 20.0


class Placement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an environment runs.

    `inline`: in the event loop. For code that never blocks.
    `thread`: each instance in a thread of its own. For code that blocks but is safe beside other threads.
    `process`: each instance in a worker process, which may crash, hang or leak without harm to anything else.
    `interpreter`: a worker process of another Python environment, with dependencies of its own.
    `remote`: on a machine that runs `palaestra serve`.
    """

    kind: Kind = "inline"
    concurrency: Count | None = None
    """Most instances at once in this process (not inline); more wait for a place in `start`. `None` for no limit."""
    deadlines: Deadlines = Deadlines()
    memory_bytes: Count | None = None
    """Most resident memory of a worker process and its descendants, in bytes; a worker above it is killed."""
    warm: int = 0
    """Idle worker processes that are kept ready once the first was needed."""
    reuse: Count = 64
    """Instances that one worker process makes, one after another, before another worker takes its place."""
    environ: dict[str, str] = {}
    """Environment variables of a worker process, beside those of this process."""
    requirements: tuple[str, ...] = ()
    """Of `interpreter`: what pip installs into it. It is built on first use and kept."""
    python: str = ""
    """Of `interpreter`: path of an existing interpreter to use as it is, or, with `requirements`, to build on."""
    url: str = ""
    """Of `remote`: `http://host:port`. The token, where one is asked for, is in `PALAESTRA_TOKEN`."""


def placed(kind: Kind, otherwise: Placement = Placement()) -> Placement:
    """`otherwise` with another kind, without the limits that this kind cannot keep."""
    kept = dict.fromkeys(_unkept(msgspec.structs.replace(otherwise, kind=kind)))
    return msgspec.structs.replace(otherwise, kind=kind, **kept)


def check_limits(placement: Placement) -> None:
    """Refuse limits that nobody would keep.

    Raises:
        EnvError: `memory_bytes` where there is no worker process, or `concurrency` inline.
    """
    for name in _unkept(placement):
        kinds = ", ".join(kind for kind in get_args(Kind) if kind in _KEEPERS[name])
        raise EnvError(f"placement kind {placement.kind!r} cannot keep {name}; leave it out, or use one of {kinds}")


_KEEPERS: dict[str, tuple[Kind, ...]] = {
    "concurrency": ("thread", "process", "interpreter", "remote"),
    "memory_bytes": ("process", "interpreter"),
}


def _unkept(placement: Placement) -> list[str]:
    return [
        name for name, kinds in _KEEPERS.items() if getattr(placement, name) is not None and placement.kind not in kinds
    ]


def foreign(package: str, *requirements: str) -> Placement:
    """For an environment that needs `package`: a worker process where it can be imported here, else an interpreter.

        register("alfworld/Original-v0", ..., placement=foreign("alfworld", "alfworld==0.4.2"))

    Args:
        package: top-level name, as it is imported.
        requirements: what pip installs into the interpreter.
    """
    kind: Kind = "interpreter" if find_spec(package) is None else "process"
    return Placement(kind=kind, requirements=requirements)
