"""What a sandbox is: its image, its work folder and its limits."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

MIB = 1024 * 1024

Root = Literal["read-only", "writable"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a sandbox may use, enforced by the kernel or by what starts it, never by what runs in it."""

    cpus: float = 1.0
    """Cores that all its processes together may keep busy."""
    memory: int = 1024 * MIB
    """Bytes that all its processes and its work folder may take together (bubblewrap: each process)."""
    pids: int = 256
    """Processes and threads at once."""
    disk: int = 512 * MIB
    """Bytes of files in its work folder, and as many in its /tmp."""
    seconds: float = 60.0
    """Seconds that a command may take which names no time-out of its own."""
    output: int = 64 * 1024
    """Bytes kept of each stream of a command that names no cap of its own: half its head, half its tail."""
    flood: int = 1024 * MIB
    """Bytes of output after which a command is killed, kept or not."""
    lifetime: float = 3600.0
    """Seconds from its start after which the sandbox is closed, whoever holds it."""


class SandboxSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What to start. Equal specs give sandboxes that are worth the same, so that a pool can keep them ready."""

    image: str = ""
    """Of a Docker engine, `name[:tag]` or an id; of bubblewrap the path of a root file system, or empty: this one."""
    workdir: str = "/work"
    """Absolute path of the work folder: writable, a copy of what the image has there, and what `snapshot` keeps."""
    env: dict[str, str] = {}
    """Variables of all commands, beside PATH, HOME (the work folder) and LANG."""
    limits: Limits = Limits()
    """See `Limits`."""
    network: tuple[str, ...] = ()
    """Hosts (`name:port`) that can be reached through a proxy; none: there is no network at all."""
    root: Root = "read-only"
    """Whether the rest of the file system can be written to, by its owner only."""
    user: tuple[int, int] = (1000, 1000)
    """Numeric user and group of all processes."""
