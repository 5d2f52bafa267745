"""Java virtual machines: each ends with the process that started it, and asks for a password."""

from __future__ import annotations

import atexit
import importlib
import os
import subprocess
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from palaestra.errors import EnvError, WorkerError, require

OLDEST = 11
"""Java's version that is needed at least."""
START_SECONDS = 60.0
"""Most time from the start of Java to its first words."""


@dataclass(frozen=True, slots=True)
class Program:
    """A package with a jar that plays."""

    name: str
    """As people know it."""
    module: str
    """Its Python package, whose `constants` say where the jar is."""
    extra: str
    """Extra of Palaestra that installs it."""
    options: tuple[str, ...]
    """Java's, with the most memory of the heap: a quarter of the machine's unless one says."""

    @property
    def jar(self) -> str:
        """Path of its classes."""
        return str(importlib.import_module(f"{self.module}.constants").JAR_PATH)


@dataclass(frozen=True, slots=True)
class Jvm:
    """A virtual machine that runs, and the connection to it."""

    program: Program
    gateway: Any
    process: subprocess.Popen[bytes]
    owner: int
    """The process that started it: its connection cannot be shared with forked ones."""

    @property
    def alive(self) -> bool:
        """Whether it can be used from this process."""
        return self.owner == os.getpid() and self.process.poll() is None

    def call(self, method: Any, *args: Any) -> Any:
        """The result of a method in Java. May be called by several threads at once.

        Raises:
            EnvError: the method raised.
            WorkerError: the virtual machine is gone.
        """
        from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

        if not self.alive:
            raise self._gone()  # asked first, because py4j tries again and logs
        try:
            return method(*args)
        except Py4JJavaError as error:
            raise self._failed(error.java_exception.toString()) from error
        except (Py4JNetworkError, OSError) as error:
            raise self._gone() from error
        except Py4JError as error:
            raise (self._failed(error) if self.alive else self._gone()) from error

    def end(self) -> None:
        """End it, if it is this process's. May be called more than once."""
        if self.owner != os.getpid():
            return
        if self.alive:
            with suppress(Exception):
                self.gateway.shutdown()
        self.gateway._gateway_client.is_connected = False  # else every object that is forgotten tries to say so
        _end(self.process)

    def _failed(self, said: object) -> EnvError:
        return EnvError(f"{self.program.name} failed: {(str(said).splitlines() or [''])[0]}")

    def _gone(self) -> WorkerError:
        return WorkerError(f"the Java process of {self.program.name} is gone; the next reset starts another")


class Machine:
    """A place for one virtual machine of a program, started when it is first needed, and again where it was killed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._running: Jvm | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, for this process."""
        return self._running is not None and self._running.alive

    def running(self) -> Jvm:
        """The virtual machine of this process, which is started if it does not run.

        Raises:
            EnvError: there is no Java, or it does not start, or is too old.
            MissingExtraError: the program is not installed.
        """
        with self._lock:
            if self._running is not None and not self._running.alive:
                self._running.end()
                self._running = None
            if self._running is None:
                self._running = start(self.program)
                atexit.register(self.stop)
            return self._running

    def stop(self) -> None:
        """End the virtual machine, if it runs here. The next one who needs it starts another."""
        with self._lock:
            ended, self._running = self._running, None
        if ended is not None:
            ended.end()
            atexit.unregister(self.stop)


def start(program: Program) -> Jvm:
    """Start a virtual machine; see `Machine.running` for what is raised."""
    require(program.module, program.extra)
    from py4j.java_gateway import GatewayParameters, JavaGateway

    process = _launch(program)
    port, token = _greeting(process)
    threading.Thread(target=_drain, args=(process.stdout,), daemon=True, name="palaestra-java").start()
    parameters = GatewayParameters(port=port, auth_token=token, auto_field=True)
    jvm = Jvm(program, JavaGateway(gateway_parameters=parameters), process, os.getpid())
    java = jvm.gateway.jvm.java
    try:
        version = jvm.call(java.lang.System.getProperty, "java.specification.version")
        if int(version.partition(".")[0]) < OLDEST:
            raise EnvError(f"{program.name} needs Java {OLDEST} or newer, this is {version}; name one in JAVA_HOME")
        # What it prints is for nobody, and would have to be read.
        nobody = jvm.call(java.io.OutputStream.nullOutputStream)
        jvm.call(java.lang.System.setOut, jvm.call(java.io.PrintStream, nobody))
    except BaseException:
        jvm.end()
        raise
    return jvm


def _launch(program: Program) -> subprocess.Popen[bytes]:
    from py4j.java_gateway import find_jar_path

    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    classes = os.pathsep.join((find_jar_path(), program.jar))
    # It ends when its input does, and asks for a password, because the port is open to everybody on this machine.
    server = ("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0")
    command = [java, *program.options, "-classpath", classes, *server]
    pipe, folder = subprocess.PIPE, os.path.dirname(program.jar)
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, cwd=folder)
    except OSError as error:
        where = f"JAVA_HOME, {home}, has no bin/java that runs" if home else "it is not installed"
        raise EnvError(
            f"{program.name} needs Java, but {where}: install it (on Debian: apt-get install default-jre-headless), "
            f"or name its folder in JAVA_HOME"
        ) from error


def _greeting(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The port and the password that Java says first; warnings may come before."""
    assert process.stdout is not None
    said: deque[str] = deque(maxlen=3)
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    try:
        for _ in range(50):
            line = process.stdout.readline(1000).decode(errors="replace").strip()
            if line.isascii() and line.isdigit() and 0 < int(line) < 2**16:
                return int(line), process.stdout.readline(1000).decode(errors="replace").strip()
            if not line and process.stdout.read(1) == b"":
                break
            said.append(line)
    finally:
        late.cancel()
    _end(process)
    process.stdout.close()
    raise EnvError(f"Java did not start, it said {' / '.join(said)[:300] or 'nothing'!r}; is JAVA_HOME right?")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]  # which it reads, to end when this process does
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _drain(output: IO[bytes]) -> None:
    """Read what Java prints, so that it never waits for somebody to read."""
    with output:
        while output.read(4096):
            pass
