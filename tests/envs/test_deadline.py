"""Event loops that end although somebody in them does not want to."""

import asyncio
import os
import signal
import time

import pytest

from palaestra.envs.deadline import run_to_the_end


async def stay() -> None:
    """For half a minute, whatever others want."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


async def leave_one_behind() -> int:
    asyncio.get_running_loop().set_debug(False)
    global left
    left = asyncio.create_task(stay())
    await asyncio.sleep(0)
    return 7


left: asyncio.Task[None] | None = None


@pytest.mark.parametrize("cancellable", [False, True])
def test_a_task_that_ignores_being_cancelled_holds_nobody_up(cancellable: bool) -> None:
    began = time.monotonic()
    assert run_to_the_end(leave_one_behind(), cancellable=cancellable) == 7
    assert time.monotonic() - began < 10


def test_ctrl_c_cancels_where_that_is_wanted() -> None:
    undone: list[str] = []

    async def go() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            undone.append("cancelled")
            raise

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_to_the_end(go(), cancellable=True)
    assert undone == ["cancelled"]
    assert signal.getsignal(signal.SIGINT) == before
