"""A Docker engine of the tests' own, and the image that its sandboxes start from.

`python dockerd.py start FOLDER` starts an engine with all its files in a folder and leaves it running, `stop FOLDER`
ends it, `image` gives the engine at `DOCKER_HOST` the base image. Only the standard library: CI runs this before
anything else.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

BASE = "palaestra-base:test"
"""Debian with Python, git and bash."""
PACKAGES = "bash,ca-certificates,git,patch,procps,python3"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
SPARE = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")


class Http(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str, timeout: float = 120.0) -> None:
        super().__init__("engine", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(
    host: str, method: str, path: str, body: object = None, timeout: float = 120.0, content: str = "application/x-tar"
) -> tuple[int, bytes]:
    """One request to the engine at `unix://...`, answered by its status and its body."""
    connection = Http(host.removeprefix("unix://"), timeout)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": content} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Engine:
    """An engine with all its files in one folder. Needs root, `dockerd` and `iptables`."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder, self.data = folder, data or folder / "data"
        self.host = f"unix://{folder}/docker.sock"
        self.log, self.pid_file = folder / "dockerd.log", folder / "pid"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 180.0) -> None:
        """Return when it answers; its log is in the message when it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["dockerd", "--data-root", self.data, "--exec-root", self.folder / "exec", "--host", self.host]
        command += ["--pidfile", self.pid_file, "--bridge", "none", "--iptables=false", "--ip6tables=false"]
        with self.log.open("ab") as log:
            self.process = process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        process.kill()
        raise RuntimeError(f"dockerd did not start; its log ends:\n{self.log.read_text()[-3000:]}")

    def answers(self) -> bool:
        """Whether there is an engine at the socket."""
        try:
            return ask(self.host, "GET", "/_ping", timeout=5.0)[0] == 200
        except OSError:
            return False

    def stop(self, seconds: float = 30.0, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until its process is gone."""
        try:
            process = int(self.pid_file.read_text())
        except FileNotFoundError:
            return
        self.kill(process, how)
        end = time.monotonic() + seconds
        while _runs(process):
            if time.monotonic() > end:
                self.kill(process, signal.SIGKILL)
            time.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)
        if self.process is not None:
            self.process.wait()
        if how == signal.SIGKILL:  # as a service manager does with what a killed engine leaves behind
            self._kill_family("containerd", seconds)
            (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    @staticmethod
    def kill(process: int, how: signal.Signals) -> None:
        """Send a signal to a process that may be gone."""
        try:
            os.kill(process, how)
        except ProcessLookupError:
            return

    def _kill_family(self, program: str, seconds: float = 10.0) -> None:
        """Kill processes of a program that have this engine's folder in their arguments."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            family = [number for number, words in _processes() if words[0].endswith(program) and self._is_in(words)]
            if not family:
                return
            for number in family:
                self.kill(number, signal.SIGKILL)
            time.sleep(0.05)

    def _is_in(self, words: list[str]) -> bool:
        return any(word.startswith(f"{self.folder}/") for word in words)

    def remove(self) -> None:
        """End it and remove its files."""
        self.stop()
        self._kill_family("containerd-shim-runc-v2")
        subprocess.run(["umount", "--quiet", "--recursive", str(self.data)], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Numbers and arguments of all processes."""
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdecimal() and (words := Path(f"/proc/{name}/cmdline").read_bytes()):
                yield int(name), os.fsdecode(words).split("\0")


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def base_archive() -> Path:
    """The base image's file system as a tar, made once and kept in the cache of this user."""
    cache = Path(os.environ.get("PALAESTRA_CACHE") or Path.home() / ".cache" / "palaestra")
    archive = cache / "images" / f"{SUITE}-{PACKAGES.replace(',', '-')}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="palaestra-base-") as folder:
            root, unfinished = Path(folder) / "root", archive.with_suffix(f".{os.getpid()}")
            options = ["--variant=minbase", f"--include={PACKAGES}"]
            subprocess.run(["debootstrap", *options, SUITE, root, MIRROR], check=True, stdout=subprocess.DEVNULL)
            pack(root, unfinished)
        unfinished.rename(archive)
    return archive


def pack(root: Path, archive: Path) -> None:
    """A root file system without what no test needs, as a tar."""
    for name in SPARE:
        shutil.rmtree(root / name, ignore_errors=True)
    subprocess.run(["tar", "--create", "--numeric-owner", "--directory", root, "--file", archive, "."], check=True)


def load_base(host: str) -> None:
    """Give an engine the base image, unless it has it."""
    if ask(host, "GET", f"/images/{BASE}/json")[0] == 200:
        return
    name, tag = BASE.split(":")
    with base_archive().open("rb") as content:
        status, answer = ask(host, "POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}", content, timeout=600.0)
    if status != 200 or b'"error"' in answer:
        raise RuntimeError(f"the engine does not import the base image: {answer.decode(errors='replace')[-1000:]}")


def main(command: str, *folder: str) -> None:
    """The command line: see the top of this file."""
    if command == "image":
        load_base(os.environ["DOCKER_HOST"])
    elif command == "start":
        Engine(Path(*folder)).start()
    else:
        Engine(Path(*folder)).remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
