"""Back ends that are shared: open as long as anybody uses them, with sandboxes ready where that is worth it."""

from __future__ import annotations

import asyncio

from support.swe_episode import need_bubblewrap

from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.sharing import MOST_POOLS, Shared, borrow
from palaestra.sandboxes.spec import SandboxSpec


def test_equal_wishes_share_and_others_do_not() -> None:
    async def borrowed() -> None:
        first, second = borrow("scripted", {"replies": ()}), borrow("scripted", {"replies": ()})
        assert first is second
        assert first.users == 2
        assert borrow("scripted", {"replies": ()}, 1) is not first
        await first.give_back()
        assert borrow("scripted", {"replies": ()}) is first
        await first.give_back()
        await first.give_back()
        assert borrow("scripted", {"replies": ()}) is not first  # the last one closed it

    asyncio.run(borrowed())


def test_another_event_loop_has_its_own() -> None:
    async def borrowed() -> Shared:
        shared = borrow("scripted", {"replies": ()})
        assert shared.users == 1
        return shared

    assert asyncio.run(borrowed()) is not asyncio.run(borrowed())


def test_few_kinds_are_kept_ready() -> None:
    need_bubblewrap()

    async def kept() -> int:
        shared = borrow("bubblewrap", {}, 1)
        for kind in range(MOST_POOLS + 2):
            await (await shared.start(SandboxSpec(env={"KIND": str(kind)}))).close()
        count = len(shared._pools)
        await shared.give_back()
        return count

    assert asyncio.run(kept()) == MOST_POOLS


def test_sandboxes_are_ready_for_a_crowd_only() -> None:
    need_bubblewrap()

    async def played() -> list[int]:
        one = borrow("bubblewrap", {}, 1, crowd=2)
        counts = []
        for _ in range(2):
            async with await one.start(SandboxSpec()) as sandbox:
                assert (await sandbox.exec(Exec(argv=("true",)))).ok
            counts.append(len(one._pools))
            borrow("bubblewrap", {}, 1, crowd=2)
        for _ in range(3):
            await one.give_back()
        return counts

    assert asyncio.run(played()) == [0, 1]
