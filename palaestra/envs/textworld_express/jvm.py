"""The package's virtual machine, one a process, and what is asked of it beside playing."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from palaestra.envs.java.machine import Jvm, Machine, Program
from palaestra.envs.textworld_express.apart import Apart

PROGRAM = Program(
    name="TextWorldExpress",
    module="textworld_express",
    extra="textworld-express",
    # A collector without threads of its own.
    options=("-Xmx1g", "-XX:+UseSerialGC"),
)
MACHINE = Machine(PROGRAM)


def make_interface(jvm: Jvm, apart: bool) -> Any:
    """A simulator of the package's; `apart` from others it shares not even static fields with them, see `Apart`."""
    kind = jvm.gateway.jvm.textworldexpress.runtime.PythonInterface
    return jvm.call(Apart, jvm) if apart else jvm.call(kind)


def texts(jvm: Jvm, sequence: Any) -> tuple[str, ...]:
    """The texts of a Java collection of whatever class: what is apart has classes that cannot be asked directly."""
    return tuple(jvm.call(list, jvm.call(jvm.gateway.jvm.java.util.ArrayList, sequence)))


def close_files(jvm: Jvm) -> None:
    """Have Java's garbage collector close what the package left open; its cleaner needs a moment."""
    jvm.call(jvm.gateway.jvm.java.lang.System.gc)
    for _ in range(50):
        if not _has_data_open(jvm.process.pid):
            return
        time.sleep(0.01)


def _has_data_open(pid: int) -> bool:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # another system
        return False
    for number in numbers:
        with suppress(OSError):  # closed since
            if os.readlink(f"/proc/{pid}/fd/{number}").endswith(".json"):
                return True
    return False
