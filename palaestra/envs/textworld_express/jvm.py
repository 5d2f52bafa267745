"""One Java virtual machine a process, started when it is first needed, for any number of simulators."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from palaestra.envs.textworld_express.apart import Apart
from palaestra.errors import EnvError, WorkerError, require

OPTIONS = ("-Xmx1g", "-XX:+UseSerialGC")
"""Most memory of the heap, a quarter of the machine's unless one says, and a collector without threads of its own."""

GONE = "the Java process of TextWorldExpress is gone; the next reset starts another"

_lock = threading.Lock()
_running: Jvm | None = None


@dataclass(frozen=True, slots=True)
class Jvm:
    """A virtual machine and the connection to it."""

    gateway: Any
    process: subprocess.Popen[bytes]
    owner: int
    """The process that started it: its connection cannot be shared with forked ones."""

    @property
    def alive(self) -> bool:
        """Whether it can be used from this process."""
        return self.owner == os.getpid() and self.process.poll() is None


def running() -> Jvm:
    """The virtual machine of this process, which is started if it does not run.

    Raises:
        EnvError: there is no Java, or it does not start.
        MissingExtraError: textworld-express is not installed.
    """
    global _running
    with _lock:
        if _running is not None and not _running.alive:
            _end(_running)
            _running = None
        _running = _running or _start()
        return _running


def make_interface(jvm: Jvm, apart: bool) -> Any:
    """A simulator of the package's; `apart` from others it shares not even static fields with them, see `Apart`."""
    from textworld_express.constants import JAR_PATH

    kind = jvm.gateway.jvm.textworldexpress.runtime.PythonInterface
    return call(Apart, jvm.gateway, JAR_PATH) if apart else call(kind)


def close_files(jvm: Jvm) -> None:
    """Have Java's garbage collector close what the package left open; its cleaner needs a moment."""
    call(jvm.gateway.jvm.java.lang.System.gc)
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


def call(method: Any, *args: Any) -> Any:
    """The result of a method in Java. May be called by several threads at once.

    Raises:
        EnvError: the method raised.
        WorkerError: the virtual machine is gone.
    """
    from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

    if _running is None or not _running.alive:
        raise WorkerError(GONE)  # asked first, because py4j tries again and logs
    try:
        return method(*args)
    except Py4JJavaError as error:
        raise EnvError(f"TextWorldExpress failed: {_first_line(error.java_exception.toString())}") from error
    except (Py4JNetworkError, OSError) as error:
        raise WorkerError(GONE) from error
    except Py4JError as error:
        if _running is None or not _running.alive:
            raise WorkerError(GONE) from error
        raise EnvError(f"TextWorldExpress failed: {_first_line(error)}") from error


def texts(sequence: Any) -> tuple[str, ...]:
    """The texts of a Java collection of whatever class: what is apart has classes that cannot be asked directly."""
    return tuple(call(list, call(running().gateway.jvm.java.util.ArrayList, sequence)))


def stop() -> None:
    """End the virtual machine, if it runs here. The next simulator starts another."""
    global _running
    with _lock:
        ended, _running = _running, None
    if ended is not None:
        _end(ended)


def _end(jvm: Jvm) -> None:
    if jvm.owner != os.getpid():
        return
    if jvm.alive:
        with suppress(Exception):
            jvm.gateway.shutdown()
    jvm.gateway._gateway_client.is_connected = False  # else every object that is forgotten tries to say so
    with suppress(OSError):
        jvm.process.stdin.close()  # type: ignore[union-attr]  # which it reads, to end when this process does
    try:
        jvm.process.wait(5)
    except subprocess.TimeoutExpired:
        jvm.process.kill()
        jvm.process.wait()


def _start() -> Jvm:
    require("textworld_express", "textworld-express")
    from py4j.java_gateway import GatewayParameters, JavaGateway

    process = _launch()
    port, token = process.stdout.readline(), process.stdout.readline()  # type: ignore[union-attr]
    if not port.strip().isdigit():
        process.communicate()
        raise EnvError(f"Java did not start; run java {' '.join(OPTIONS)} -version to see why")
    threading.Thread(target=_drain, args=(process.stdout,), daemon=True, name="palaestra-java").start()
    parameters = GatewayParameters(port=int(port), auth_token=token.decode().strip(), auto_field=True)
    atexit.register(stop)
    return Jvm(JavaGateway(gateway_parameters=parameters), process, os.getpid())


def _launch() -> subprocess.Popen[bytes]:
    from py4j.java_gateway import find_jar_path
    from textworld_express.constants import BASEPATH, JAR_PATH

    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    classes = os.pathsep.join((find_jar_path(), JAR_PATH))
    # It ends when its input does, and asks for a password, because the port is open to everybody on this machine.
    server = ("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0")
    command = [java, *OPTIONS, "-classpath", classes, *server]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, cwd=BASEPATH)
    except OSError as error:
        raise EnvError(
            "TextWorldExpress needs Java, which is not installed (on Debian: apt-get install default-jre-headless), "
            "or name its folder in JAVA_HOME"
        ) from error


def _drain(output: IO[bytes]) -> None:
    """Read what Java prints, so that it never waits for somebody to read."""
    with output:
        while output.read(4096):
            pass


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]
