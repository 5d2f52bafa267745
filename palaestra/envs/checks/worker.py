"""The process in which `supervised` checks one environment: a `Request` on standard input, `Message`s to a pipe.

Run as `python -m palaestra.envs.checks.worker DESCRIPTOR`.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time

import msgspec

from palaestra.envs.checker import check_env
from palaestra.envs.checks.report import Check, Report
from palaestra.envs.checks.resources import family
from palaestra.envs.deadline import Limits
from palaestra.envs.isolation.placement import Kind
from palaestra.envs.isolation.proc import adopt_orphans, kill
from palaestra.envs.registry import EnvSpec

_POLL = 0.05
LENGTH = struct.Struct("<I")
"""Before each message, its bytes."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to check, and how."""

    spec: EnvSpec
    path: list[str]
    """Where to import its code from."""
    modules: list[str]
    """Modules that register environments, imported first."""
    episodes: int
    max_steps: int
    placement: Kind | None
    call_seconds: float
    check_seconds: float


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame of the pipe: `LENGTH`, then MessagePack."""

    begun: str = ""
    """A check that begins now."""
    done: Check | None = None
    report: Report | None = None
    """The last message."""


def main() -> int:
    """Check what standard input asks for, in a child; this process stays to end what the environment has started."""
    pipe = int(sys.argv[1])
    checker = os.fork()  # nothing has started a thread yet
    if checker == 0:
        return _check(pipe)
    os.close(pipe)
    if sys.platform == "linux":
        adopt_orphans(True)
    code = _ending(checker)
    for pid in family(os.getpid())[1:]:
        kill(pid)
    if code < 0:
        os.kill(os.getpid(), -code)  # end as the child did
    return code


def _ending(checker: int) -> int:
    """How the child ended, by itself or because whoever asked for the checks is gone."""
    asker = os.getppid()
    while True:
        pid, status = os.waitpid(checker, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if os.getppid() != asker:
            kill(checker)
        time.sleep(_POLL)


def _check(pipe: int) -> int:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    os.set_inheritable(pipe, False)  # so that it ends with this process, whatever the environment starts
    sys.path[:] = request.path
    for module in request.modules:
        importlib.import_module(module)

    def tell(message: Message) -> None:
        packed = msgspec.msgpack.encode(message)  # JSON has no numbers that are not finite
        with open(pipe, "wb", closefd=False) as out:
            out.write(LENGTH.pack(len(packed)) + packed)

    report = check_env(
        request.spec,
        seeds=range(request.episodes),
        max_steps=request.max_steps,
        placement=request.placement,
        limits=Limits(call=request.call_seconds, check=request.check_seconds),
        progress=lambda name, check: tell(Message(begun=name) if check is None else Message(done=check)),
    )
    tell(Message(report=report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
