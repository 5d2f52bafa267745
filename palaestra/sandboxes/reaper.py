"""The reaper: finds what sandboxes take on a machine, says who holds it, and removes what nobody holds any more.

Nothing depends on the process that made a thing: its lease is dead as soon as that process is, and whoever comes next
(a back end's first start, or `palaestra sandboxes reap`) removes the thing. Only leases of this user's folder count;
what carries any other id is left alone until its own date is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from msgspec import Struct
from msgspec.structs import replace

from palaestra.errors import MissingExtraError, SandboxError
from palaestra.sandboxes import leases
from palaestra.sandboxes.docker_keeper import docker_keeper
from palaestra.sandboxes.local_keeper import LocalKeeper
from palaestra.sandboxes.things import ORDER, Keeper, Thing

_log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""After its date a thing is left to its holder for so long: it ends sandboxes by its own clock."""
_AT_ONCE = 4
"""Removals at once: an engine gets slower with more, and others want it too."""


class Survey(Struct, frozen=True):
    """What there is."""

    things: list[Thing]
    """All that carry a lease's id, with their states."""
    unseen: dict[str, str] = {}
    """Back ends that could not be looked at, and why."""


class Reaping(Struct, frozen=True):
    """What was removed."""

    removed: list[Thing]
    """What is gone now; in a rehearsal, what would be."""
    kept: dict[str, str] = {}
    """Things that could not be removed, by name, and why."""
    unseen: dict[str, str] = {}
    """See `Survey.unseen`."""


async def survey() -> Survey:
    """What sandboxes take on this machine, and who holds it."""
    async with AsyncExitStack() as stack:
        keepers, unseen = await _keepers(stack)
        return Survey([thing for keeper in keepers for thing in await _judged(keeper)], unseen)


async def reap(ids: Sequence[str] = (), *, rehearse: bool = False) -> Reaping:
    """Remove what belongs to dead leases, or is past its date.

    Args:
        ids: leases whose things are removed too, whoever holds them.
        rehearse: remove nothing, and tell what would be.
    """
    async with AsyncExitStack() as stack:
        keepers, unseen = await _keepers(stack)
        done = await reap_from(keepers, ids, rehearse=rehearse)
        if not (rehearse or unseen or done.kept):
            _forget_dead()
        return replace(done, unseen=unseen)


async def reap_from(keepers: Sequence[Keeper], ids: Sequence[str] = (), *, rehearse: bool = False) -> Reaping:
    """As `reap`, with these keepers only."""
    found = {keeper.name: [each for each in await _judged(keeper) if _is_over(each, ids)] for keeper in keepers}
    everything = [thing for things in found.values() for thing in things]
    if rehearse:
        return Reaping(everything)
    kept: dict[str, str] = {}
    for kind in ORDER:  # what is used only after what uses it
        for keeper in keepers:
            kept |= await _remove(keeper, [thing for thing in found[keeper.name] if thing.kind == kind])
    return Reaping([thing for thing in everything if thing.name not in kept], kept)


def reap_soon(keeper: Keeper | None = None) -> asyncio.Task[None] | None:
    """Begin to reap in the background, once for each keeper's name in this process; errors are logged, not raised.

    What a back end calls at its first start, inside a running event loop.

    Args:
        keeper: of the back end; it has to answer until the task ends. `None`: only processes and folders of this
            machine.

    Returns:
        The task, to be awaited or cancelled when the back end closes; `None` where it was begun before.
    """
    keepers: list[Keeper] = [LocalKeeper(), *([keeper] if keeper else [])]
    name = keepers[-1].name
    if name in _begun:
        return None
    _begun[name] = asyncio.create_task(_reap_quietly(keepers), name=f"reap {name}")
    return _begun[name]


_begun: dict[str, asyncio.Task[None]] = {}


async def _reap_quietly(keepers: Sequence[Keeper]) -> None:
    try:
        with leases.reaping() as mine:
            if mine:
                done = await reap_from(keepers)
                for name, reason in done.kept.items():
                    _log.warning("left over: %s: %s", name, reason)
    except SandboxError as error:
        _log.warning("cannot look for what is left over: %s", error)


async def _keepers(stack: AsyncExitStack) -> tuple[list[Keeper], dict[str, str]]:
    keepers: list[Keeper] = [LocalKeeper()]
    try:
        keepers.append(await stack.enter_async_context(docker_keeper()))
    except (SandboxError, MissingExtraError) as error:
        return keepers, {"docker": str(error)}
    return keepers, {}


async def _judged(keeper: Keeper) -> list[Thing]:
    """Its things with their states. Leases are asked after the things were listed: they are there before them."""
    things = await keeper.things()
    known = await asyncio.to_thread(lambda: {id: leases.lease_of(id) for id in {thing.lease for thing in things}})
    now = time.time()
    judged = []
    for thing in things:
        lease = known[thing.lease]
        late = thing.expires is not None and now > thing.expires + GRACE_SECONDS
        state = "expired" if late and lease.state != "dead" else lease.state
        judged.append(replace(thing, state=state, holder=lease.holder))
    return judged


def _is_over(thing: Thing, ids: Sequence[str]) -> bool:
    return thing.state in ("dead", "expired") or thing.lease in ids


async def _remove(keeper: Keeper, things: Sequence[Thing]) -> dict[str, str]:
    """Remove them, a few at once; gives the names of those that are still there, and why."""
    turns, kept = asyncio.Semaphore(_AT_ONCE), {}

    async def remove(thing: Thing) -> None:
        async with turns:
            try:
                await keeper.remove(thing)
            except SandboxError as error:
                kept[thing.name] = str(error)

    await asyncio.gather(*(remove(thing) for thing in things))
    return kept


def _forget_dead() -> None:
    for lease in leases.leases():
        if lease.state == "dead":
            leases.forget(lease.id)
