"""What sandboxes take on a machine: containers, volumes, folders and the like, each marked with its lease."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from palaestra.sandboxes.leases import Holder, State

Kind = Literal["process", "container", "network", "volume", "image", "folder"]
"""In the order in which they are removed: the later ones are used by the earlier ones."""

ORDER: tuple[Kind, ...] = ("process", "container", "network", "volume", "image", "folder")


class Thing(Struct, frozen=True):
    """Something that belongs to a lease."""

    name: str
    """By which it is found where it is kept: an id, a name, a number, a path."""
    kind: Kind
    """See `Kind`."""
    backend: str
    """Which keeper found it."""
    lease: str
    """As its label says, which anybody may have written."""
    title: str = ""
    """What people know it by, such as a sandbox's id, where that is not its name."""
    image: str = ""
    """Of a container, what it was started from."""
    created: float | None = None
    """Seconds since 1970, where it is known."""
    expires: float | None = None
    """Seconds since 1970 after which it is left over, whoever holds its lease; `None`: never."""
    state: State = "elsewhere"
    """Of its lease, or `expired` by its own date. The reaper removes what is dead or expired."""
    holder: Holder | None = None
    """Of its lease, where that is known."""


class Keeper(Protocol):
    """A place where things are: an engine, or folders on a disk."""

    name: str
    """Name of the back end."""

    async def things(self) -> list[Thing]:
        """All that carry a lease's id, without their states.

        Raises:
            SandboxDaemonError: the place cannot be looked at.
        """
        ...

    async def remove(self, thing: Thing) -> None:
        """Remove one of them. One that is gone is no error.

        Raises:
            SandboxDaemonError: it cannot be removed.
        """
        ...
