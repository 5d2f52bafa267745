"""Episodes of the environment under test, played again in a fresh process with other hashes of texts.

Run as `python -m palaestra.envs.checks.elsewhere`: reads a `Request` as JSON and writes the hash chains.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec

from palaestra.envs.checks.probe import Broken, Probe, Skipped
from palaestra.envs.deadline import run_to_the_end
from palaestra.envs.episode import Episode, play
from palaestra.envs.registry import EnvSpec, make
from palaestra.errors import PalaestraError


class Played(msgspec.Struct, frozen=True):
    """What to play."""

    seed: int
    actions: list[Any]


class Request(msgspec.Struct, frozen=True):
    """An environment, and episodes of it."""

    spec: EnvSpec
    path: list[str]
    """Where to import its code from."""
    episodes: list[Played]


async def links_elsewhere(probe: Probe, episodes: Sequence[Episode]) -> list[list[str]]:
    """The hash chains of `episodes` in a process whose `PYTHONHASHSEED` is another one.

    Raises:
        Skipped: there is no way to make the environment in another process.
        Broken: the process failed.
    """
    spec = probe.spec
    if spec is None:
        raise Skipped("it is not registered")
    module = spec.entry_point.partition(":")[0]
    if module == "__main__" or "<" in spec.entry_point:
        raise Skipped("other processes cannot import its class")
    try:
        request = msgspec.json.encode(Request(spec, sys.path, [Played(e.seed, e.actions) for e in episodes]))
    except TypeError:
        raise Skipped("its actions are not JSON values") from None
    output = await _run(request, probe.watch.limits.check)
    return msgspec.json.decode(output, type=list[list[str]])


async def _run(request: bytes, seconds: float) -> bytes:
    # The only other value that is sure to differ from a random one is a second fixed one, so two are at hand.
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    # Files, not pipes: what the environment starts may hold their ends for longer than the process lives.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        asked.write(request)
        asked.seek(0)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__),
            stdin=asked,
            stdout=said,
            stderr=errors,
            env={**os.environ, "PYTHONHASHSEED": other},
        )
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
        except TimeoutError:
            raise Broken(f"in another process it took longer than {seconds:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        said.seek(0)
        errors.seek(0)
        if code:
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {code}"]
            raise Broken(f"it fails in another process: {last[0]}")
        return said.read()


def main() -> int:
    """Answer the request on standard input."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    sys.path[:] = request.path
    answer = os.dup(1)
    os.dup2(2, 1)  # what the environment prints is no answer
    try:
        chains = run_to_the_end(_play(request))
    except (PalaestraError, Exception) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(chains))
    return 0


async def _play(request: Request) -> list[list[str]]:
    chains = []
    for episode in request.episodes:
        async with make(request.spec) as env:
            chains.append((await play(env, episode.seed, episode.actions, len(episode.actions))).links)
    return chains


if __name__ == "__main__":
    raise SystemExit(main())
