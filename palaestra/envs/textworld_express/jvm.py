"""One Java virtual machine a process, started when it is first needed, for any number of simulators."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from palaestra.envs.textworld_express.apart import Apart
from palaestra.errors import EnvError, WorkerError, require

HEAP = "1g"
"""Most memory of Java's heap. Without a limit Java takes a quarter of the machine's."""

_lock = threading.Lock()
_running: Jvm | None = None


@dataclass(frozen=True, slots=True)
class Jvm:
    """A virtual machine and the connection to it."""

    gateway: Any
    process: subprocess.Popen[bytes]
    owner: int
    """The process that started it: its connection cannot be shared with forked ones."""
    idle: dict[bool, list[Any]] = field(default_factory=lambda: {False: [], True: []})
    """Simulators that nobody uses now, by whether they are apart."""

    @property
    def alive(self) -> bool:
        """Whether it can be used from this process."""
        return self.owner == os.getpid() and self.process.poll() is None


def borrow(apart: bool = False) -> tuple[Jvm, Any]:
    """The virtual machine of this process, which is started if it does not run, and a simulator in it.

    Simulators are used again, because the package never closes the four files that each one reads.

    Args:
        apart: share not even static fields with the others; see `Apart`.

    Raises:
        EnvError: there is no Java, or it does not start.
        MissingExtraError: textworld-express is not installed.
    """
    jvm = _jvm()
    with suppress(IndexError):
        return jvm, jvm.idle[apart].pop()
    made = call(_make, jvm.gateway, apart)
    call(jvm.gateway.jvm.java.lang.System.gc)  # closes the files
    return jvm, made


def give_back(jvm: Jvm, simulator: Any, apart: bool) -> None:
    """Let others use a simulator that was borrowed."""
    if jvm.alive:
        jvm.idle[apart].append(simulator)


def _make(gateway: Any, apart: bool) -> Any:
    from textworld_express.constants import JAR_PATH

    return Apart(gateway, JAR_PATH) if apart else gateway.jvm.textworldexpress.runtime.PythonInterface()


def call(method: Any, *args: Any) -> Any:
    """The result of a method in Java. May be called by several threads at once.

    Raises:
        EnvError: the method raised.
        WorkerError: the virtual machine is gone.
    """
    from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

    try:
        return method(*args)
    except Py4JJavaError as error:
        raise EnvError(f"TextWorldExpress failed: {_first_line(error.java_exception.toString())}") from error
    except (Py4JNetworkError, OSError) as error:
        raise WorkerError("the Java process of TextWorldExpress is gone; the next reset starts another") from error
    except Py4JError as error:
        running = _running
        if running is None or not running.alive:
            raise WorkerError("the Java process of TextWorldExpress is gone; the next reset starts another") from error
        raise EnvError(f"TextWorldExpress failed: {_first_line(error)}") from error


def texts(sequence: Any) -> tuple[str, ...]:
    """The texts of a Java collection of whatever class: what is apart has classes that cannot be asked directly."""
    return tuple(call(list, call(_jvm().gateway.jvm.java.util.ArrayList, sequence)))


def stop() -> None:
    """End the virtual machine, if it runs here. The next simulator starts another."""
    global _running
    with _lock:
        running, _running = _running, None
    if running is None or running.owner != os.getpid():
        return
    with suppress(Exception):
        running.gateway.shutdown()
    with suppress(OSError):
        running.process.stdin.close()  # type: ignore[union-attr]  # which it reads, to end when this process does
    try:
        running.process.wait(5)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.wait()


def _jvm() -> Jvm:
    global _running
    with _lock:
        if _running is None or not _running.alive:
            _running = _start()
        return _running


def _start() -> Jvm:
    require("textworld_express", "textworld-express")
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
    from textworld_express.constants import BASEPATH, JAR_PATH

    options = [f"-Xmx{HEAP}", "-XX:+UseSerialGC"]
    try:
        port, token, process = launch_gateway(
            classpath=JAR_PATH,
            javaopts=options,
            java_path=None,  # JAVA_HOME's, else that of PATH
            die_on_exit=True,
            return_proc=True,
            enable_auth=True,  # the port is open to everybody on this machine
            cwd=BASEPATH,
        )
    except OSError as error:
        raise EnvError(
            "TextWorldExpress needs Java, which is not installed (on Debian: apt-get install default-jre-headless), "
            "or name its folder in JAVA_HOME"
        ) from error
    except ValueError as error:  # it says no port
        raise EnvError(f"Java did not start: run java {' '.join(options)} -version to see why") from error
    parameters = GatewayParameters(port=port, auth_token=token, auto_field=True)
    atexit.register(stop)
    return Jvm(JavaGateway(gateway_parameters=parameters), process, os.getpid())


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]
