"""What goes wrong with an engine, in words that say what to do about it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Iterator

import aiohttp
from aiodocker.exceptions import DockerContextError, DockerError

from palaestra.errors import SandboxDaemonError, SandboxError, SandboxImageError

FAILURES = (DockerError, aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What aiodocker raises when the engine cannot be asked, or refuses."""

_UNREACHABLE = 900
"""The status that aiodocker gives to an engine that it cannot connect to."""
_FULL = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_PROGRAM = re.compile(r"executable file not found|python3\W.*no such file", re.IGNORECASE)
_NO_IMAGE = re.compile("no such image|pull access denied|manifest unknown|manifest for .* not found", re.IGNORECASE)
_NO_RUNTIME = re.compile("unknown or invalid runtime name|unknown runtime specified", re.IGNORECASE)


def explain(error: Exception, host: str, image: str = "") -> SandboxError:
    """The error to raise in place of one of `FAILURES`.

    Args:
        error: what aiodocker raised.
        host: address of the engine.
        image: what was to be started, for the errors that are the image's.
    """
    if isinstance(error, DockerContextError):
        return SandboxDaemonError(f"Docker's configuration names an engine that it does not describe: {error}")
    if isinstance(error, DockerError) and error.status != _UNREACHABLE:
        return _refused(error.message, host, image)
    if isinstance(error, asyncio.TimeoutError):
        return SandboxDaemonError(f"the Docker engine at {host} does not answer in time; is its machine overloaded?")
    return _unreachable(error, host)


def _unreachable(error: Exception, host: str) -> SandboxDaemonError:
    number = next((each.errno for each in _causes(error) if isinstance(each, OSError) and each.errno), 0)
    if number in (errno.EACCES, errno.EPERM):
        mend = "run as a member of the group that owns the socket (usually docker), or as root"
        return SandboxDaemonError(f"this user may not use the Docker engine at {host}: permission denied; {mend}")
    if number in (errno.ENOENT, errno.ECONNREFUSED):
        return absent(host)
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    mend = "was it stopped or restarted? See its log"
    return SandboxDaemonError(f"the connection to the Docker engine at {host} broke: {reason}; {mend}")


def absent(host: str = "") -> SandboxDaemonError:
    """Nobody listens there, or it is not known where."""
    where = f"at {host}" if host else "at any of the usual places"
    return SandboxDaemonError(f"no Docker engine answers {where}; start one, or name its address in DOCKER_HOST")


def _refused(message: str, host: str, image: str) -> SandboxError:
    brief = " ".join(message.split())[-400:]
    if _FULL.search(message):
        mend = "free some, for example with: docker system prune"
        return SandboxDaemonError(f"the Docker engine at {host} has no space left on its disk: {brief}; {mend}")
    if _NO_PROGRAM.search(message):
        return no_python(image)
    if _NO_IMAGE.search(message):
        return SandboxImageError(f"the Docker engine at {host} cannot get image {image!r}: {brief}")
    if _NO_RUNTIME.search(message):
        return SandboxDaemonError(f"the Docker engine at {host} lacks that runtime: {brief}; see: docker info")
    return SandboxDaemonError(f"the Docker engine at {host} refuses: {brief}")


def missing(image: str, host: str) -> SandboxImageError:
    """The engine does not have it."""
    mend = f"run: docker pull {image}, build it, or open the back end with pull=True"
    return SandboxImageError(f"the Docker engine at {host} has no image {image!r}; {mend}")


def no_python(image: str) -> SandboxImageError:
    """It lacks the only program that a sandbox needs."""
    return SandboxImageError(f"image {image!r} has no python3 on its PATH; build one FROM it that installs python3")


def died(complaint: str, image: str, what: str) -> SandboxError:
    """A Python in a container ended too early.

    Args:
        complaint: the last thing that it said.
        image: whose it is.
        what: what was not done.
    """
    if complaint.startswith(("SyntaxError", "ImportError", "ModuleNotFoundError")):
        return SandboxImageError(f"image {image!r} has a python3 older than 3.8 ({complaint}); install a newer one")
    if _FULL.search(complaint):
        mend = "free some, for example with: docker system prune"
        return SandboxDaemonError(f"the Docker engine has no space left on its disk: {complaint}; {mend}")
    return SandboxError(f"{what}: {complaint or 'python3 said nothing and ended'}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it: aiodocker does not link them, but the interpreter does."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
