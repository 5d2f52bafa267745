"""What containers are made of: all that keeps what runs in them in there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from palaestra.errors import ConfigError
from palaestra.sandboxes.network import check_network
from palaestra.sandboxes.spec import MIB, SandboxSpec

KEPT = "/.palaestra"
"""Where a container finds what a volume keeps."""
_SYSTEM = ("/proc", "/sys", "/dev", "/tmp", KEPT)
_PERIOD = 100_000
"""Microseconds over which the processor's time is counted."""
_LEAST_MEMORY = 32 * MIB
"""Bytes below which Python itself does not start."""
_MOST_FILES = 16_384
"""Files that any work folder may hold, however small; beyond them one for each 4 KiB of its limit."""

Config = dict[str, Any]
"""A body of the engine's API."""


def check(spec: SandboxSpec) -> None:
    """Whether it makes sense to an engine.

    Raises:
        ConfigError: it does not.
    """
    path, limits = spec.workdir, spec.limits
    if not spec.image:
        raise ConfigError("the docker back end needs an image: SandboxSpec(image='name:tag')")
    if not path.startswith("/") or path == "/" or posixpath.normpath(path) != path:
        raise ConfigError(f"workdir has to be an absolute path without dots, and not the root: {path!r}")
    if any(path == each or path.startswith(f"{each}/") for each in _SYSTEM):
        raise ConfigError(f"workdir cannot be in {', '.join(_SYSTEM)}: {path!r}")
    check_network(spec.network)
    if limits.memory < _LEAST_MEMORY:
        raise ConfigError(f"a sandbox needs at least {_LEAST_MEMORY // MIB} MiB of memory: {limits.memory}")
    if limits.cpus < 0.01 or limits.pids < 2 or limits.disk < MIB:
        raise ConfigError(f"a sandbox needs at least 0.01 cpus, 2 pids and 1 MiB of disk: {limits}")


def sandbox_config(
    spec: SandboxSpec,
    image: str,
    program: Sequence[str],
    *,
    labels: Mapping[str, str],
    kept: str = "",
    declared: Mapping[str, str] | None = None,
    runtime: str = "",
) -> Config:
    """The container of a sandbox.

    Args:
        spec: what it may.
        image: id of what it starts from.
        program: its first process, which reads from stdin and ends with it.
        labels: of the container and its work folder.
        kept: volume that it can read at `KEPT`; none where this is empty.
        declared: folders that the image declares to be volumes, and the volumes with what it has there.
        runtime: name of the engine's runtime; empty: the engine's own choice.
    """
    uid, gid = spec.user
    limits = spec.limits
    mounts = [_work(spec, labels), *([_kept(kept)] if kept else [])]
    mounts += [_declared(*each, labels) for each in (declared or {}).items() if each[0] not in (spec.workdir, "/tmp")]
    return {
        **_program(image, program, labels),
        "User": f"{uid}:{gid}",
        "HostConfig": {
            **_confined(mounts, runtime),
            "ReadonlyRootfs": spec.root == "read-only",
            "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,{_bounds(limits.disk)}"},
            "Memory": limits.memory,
            "MemorySwap": limits.memory,
            "CpuPeriod": _PERIOD,
            "CpuQuota": int(limits.cpus * _PERIOD),
            "PidsLimit": limits.pids,
        },
    }


def copier_config(
    image: str,
    program: Sequence[str],
    target: str,
    *,
    labels: Mapping[str, str],
    source: tuple[str, str] | None = None,
    declared: Mapping[str, str] | None = None,
) -> Config:
    """The container that copies into a volume: root, which may read and give away any file, and can do nothing else.

    Args:
        image: whose Python runs, and whose files are copied where there is no `source`.
        program: its only process.
        target: volume to copy into, at `KEPT`.
        labels: of the container.
        source: volume to copy from, and its path inside.
        declared: see `sandbox_config`; the engine fills them when it makes this container, before any sandbox has them.
    """
    mounts = [_kept(target, read_only=False)]
    mounts += [_declared(*each, labels) for each in (declared or {}).items()]
    if source:
        mounts.append({"Type": "volume", "Source": source[0], "Target": source[1], "ReadOnly": True})
    return {
        **_program(image, program, labels),
        "User": "0:0",
        "HostConfig": {
            **_confined(mounts),
            "CapAdd": ["DAC_OVERRIDE", "CHOWN", "FOWNER"],
            "ReadonlyRootfs": True,
            "PidsLimit": 16,
        },
    }


def _program(image: str, program: Sequence[str], labels: Mapping[str, str]) -> Config:
    """A process on a stream: when nobody holds the other end any more, its stdin ends."""
    return {
        "Image": image,
        "Entrypoint": list(program),
        "Cmd": [],
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "Labels": dict(labels),
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",  # an engine that is stopped need not wait for what has nothing to save
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "NetworkDisabled": True,
    }


def _confined(mounts: Sequence[Config], runtime: str = "") -> Config:
    """No network, no capabilities, none to be gained; the engine's own seccomp profile and masked paths stay."""
    return {
        "AutoRemove": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "NetworkMode": "none",
        "IpcMode": "private",
        "LogConfig": {"Type": "none"},
        "Mounts": list(mounts),
        "OomScoreAdj": 500,
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        **({"Runtime": runtime} if runtime else {}),
    }


def in_memory(size: int, user: tuple[int, int] = (0, 0)) -> dict[str, str]:
    """Options of a volume in memory, of at most so many bytes, which is a user's and group's.

    Not in huge pages: a byte here and there would take much, and where the engine's machine is virtual and gives free
    memory back, to get it again in huge pages takes longer than to copy into small ones.
    """
    options = f"nosuid,nodev,uid={user[0]},gid={user[1]},mode=0755,{_bounds(size)}"
    return {"type": "tmpfs", "device": "tmpfs", "o": options}


def _work(spec: SandboxSpec, labels: Mapping[str, str]) -> Config:
    """The work folder: in memory, which bounds it, and without a name, so that it goes with its container."""
    driver = {"Name": "local", "Options": in_memory(spec.limits.disk, spec.user)}
    volume = {"NoCopy": True, "Labels": dict(labels), "DriverConfig": driver}
    return {"Type": "volume", "Target": spec.workdir, "VolumeOptions": volume}


def _kept(volume: str, *, read_only: bool = True) -> Config:
    return {
        "Type": "volume",
        "Source": volume,
        "Target": KEPT,
        "ReadOnly": read_only,
        "VolumeOptions": {"NoCopy": True},
    }


def _declared(path: str, volume: str, labels: Mapping[str, str]) -> Config:
    """What the image has there can be read, and no disk be filled through it. The engine makes and fills the volume."""
    options = {"Labels": dict(labels)}
    return {"Type": "volume", "Source": volume, "Target": path, "ReadOnly": True, "VolumeOptions": options}


def _bounds(size: int) -> str:
    return f"size={size},nr_inodes={max(_MOST_FILES, size // 4096)}"
