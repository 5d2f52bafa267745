"""`task.toml` of a Harbor task: what of it matters here, by its types; other keys are passed over."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from palaestra.envs.swe.folders import read_text
from palaestra.errors import DataError

MOST_BYTES = 1024 * 1024
"""Of `task.toml`, and of `instruction.md`."""
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<otherwise>[^}]*))?\}")
_SIZE = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,6})?)\s*(?P<unit>[KMGT])I?B?", re.IGNORECASE)
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}

Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]
Megabytes = Annotated[int, Meta(gt=0, le=16 * 1024**2)]
Network = Literal["public", "no-network", "allowlist"]


class Verifier(Struct):
    """`[verifier]`."""

    timeout_sec: Seconds = 600.0
    env: dict[str, str] = {}


class Agent(Struct):
    """`[agent]`."""

    timeout_sec: Seconds | None = None


class Environment(Struct):
    """`[environment]`."""

    docker_image: str | None = None
    cpus: Annotated[float, Meta(gt=0, le=1024)] = 1
    memory_mb: Megabytes | None = None
    storage_mb: Megabytes | None = None
    memory: str | None = None
    """Of older files: `2G`."""
    storage: str | None = None
    """Of older files: `10G`."""
    gpus: int = 0
    allow_internet: bool = True
    network_mode: Network | None = None
    allowed_hosts: list[str] = []
    env: dict[str, str] = {}


class Solution(Struct):
    """`[solution]`."""

    env: dict[str, str] = {}


class TaskFile(Struct):
    """The whole file."""

    metadata: dict[str, Any] = {}
    verifier: Verifier = msgspec.field(default_factory=Verifier)
    agent: Agent = msgspec.field(default_factory=Agent)
    environment: Environment = msgspec.field(default_factory=Environment)
    solution: Solution = msgspec.field(default_factory=Solution)
    steps: Any = None
    """Of tasks in several steps, which are not played here."""


def read_task_file(path: Path) -> TaskFile:
    """The file at `path`.

    Raises:
        DataError: it is not there, is no TOML, or a field is of another type; the message names the field.
    """
    text = read_text(path, MOST_BYTES)
    try:
        return msgspec.convert(tomllib.loads(text), TaskFile)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {str(error)[:300]}") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deeply") from None


def megabytes(whole: int | None, text: str | None, default: int, where: str) -> int:
    """A size, from either way to write it.

    Raises:
        DataError: `text` is no size.
    """
    if whole is not None or text is None:
        return default if whole is None else whole
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match["number"]) * _UNITS[match["unit"].upper()]) if match else 0
    if not 0 < size <= 16 * 1024**2:
        raise DataError(f"{where} is a size such as 512M or 2G, not {text[:80]!r}")
    return size


def resolved(env: Mapping[str, str], variables: Mapping[str, str], where: str) -> dict[str, str]:
    """Variables of a task, with `${NAME}` and `${NAME:-otherwise}` replaced by the user's.

    This machine's own variables are never read: a stranger's file could name those with keys in them.

    Raises:
        DataError: one has no value, or a name is none.
    """

    def value(match: re.Match[str]) -> str:
        if match["name"] in variables:
            return variables[match["name"]]
        if match["otherwise"] is None:
            raise DataError(f"{where} wants the variable {match['name']}; give it with variables={{...}}")
        return match["otherwise"]

    for name in env:
        if not re.fullmatch(r"[A-Za-z_]\w{0,200}", name):
            raise DataError(f"{where}: {name[:80]!r} is no name of a variable")
    return {name: _VARIABLE.sub(value, text) for name, text in env.items()}
