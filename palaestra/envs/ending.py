"""What ends a program, and what an environment raises that would: `sys.exit()` in its code ends one episode only."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Awaitable
from typing import TypeVar

from palaestra.errors import EnvError

T = TypeVar("T")


async def contained(work: Awaitable[T]) -> T:
    """The result of `work`, which may run as a task: asyncio lets a task's `SystemExit` out of the whole loop.

    Raises:
        EnvError: it tried to end the process, or claims to have been cancelled.
    """
    try:
        return await work
    except BaseException as error:
        if isinstance(error, Exception) or is_meant(error):
            raise
        raise EnvError(told(error)) from error


def is_meant(error: BaseException) -> bool:
    """Whether `error` ends the running task or the program, rather than that an environment raised the like."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, GeneratorExit) or (isinstance(error, KeyboardInterrupt) and _is_ctrl_c(error))


def told(error: BaseException) -> str:
    """One line about `error`, with its type."""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called; raise an error instead"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_ctrl_c(error: KeyboardInterrupt) -> bool:
    """Whether a signal may have caused it.

    Under `asyncio.run` the first Ctrl-C cancels, and the next ones are raised by a handler that the traceback shows.
    Python's own handler leaves no trace, so where that one is in place every `KeyboardInterrupt` counts.
    """
    if threading.current_thread() is not threading.main_thread():
        return False  # signals are handled in the main thread
    raiser = getattr(getattr(asyncio.Runner, "_on_sigint", None), "__code__", None)
    handler = signal.getsignal(signal.SIGINT)
    method = handler.func if isinstance(handler, functools.partial) else handler
    if raiser is None or getattr(method, "__code__", None) is not raiser:
        return True
    cause: BaseException | None = error
    while cause is not None:
        trace = cause.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code is raiser:
                return True
            trace = trace.tb_next
        cause = cause.__cause__ or cause.__context__
    return False
