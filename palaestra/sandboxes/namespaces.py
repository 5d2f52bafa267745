"""How bubblewrap is told to make a sandbox: what is seen in it, who its processes are, and what they may use."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO

from palaestra.errors import SandboxDaemonError
from palaestra.sandboxes.boot import runner_command
from palaestra.sandboxes.seccomp import contained
from palaestra.sandboxes.spec import SandboxSpec

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "gai.conf", "host.conf",
    "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "magic", "magic.mime", "mime.types", "nsswitch.conf", "os-release", "perl", "protocols", "python3", "python3.11",
    "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
"""Of /etc, what programs need and nobody keeps a secret in."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHARED_MEMORY = 64 << 20
_FIRST_USER = 0x50000000
"""Where users begin that nobody has: each sandbox of root's gets one, so that its processes can be counted."""
_COVERED = "/venv"
"""Where this interpreter's virtual environment is seen when the work folder lies over it."""
_STOP = 5.0
"""Seconds for a sandbox to end by itself."""


def rlimits(spec: SandboxSpec) -> dict[str, int]:
    """Limits of the kernel's on processes in a sandbox."""
    return {"NPROC": spec.limits.pids, "CORE": 0, "NOFILE": 4096, "MEMLOCK": 65536}


async def started(
    spec: SandboxSpec, turn: int, link: int, errors: IO[bytes], shelves: dict[str, int], mark: dict[str, str]
) -> subprocess.Popen[bytes]:
    """The process that holds a sandbox, and has its runner at the other end of `link`. Not to be cancelled.

    Args:
        spec: of the sandbox.
        turn: which of the machine's cores it gets: those after as many as this.
        link: its stdin and stdout.
        errors: where it says why it does not start.
        shelves: open files for `pack` and `unpack`.
        mark: variables by which it is found should it outlive this process.
    """
    root = os.geteuid() == 0
    with ExitStack() as stack:
        filters = [_memory_file(stack, each) for each in (contained(),) if each is not None]
        command = _command(spec, filters)
        passed = [*filters, *shelves.values()]
        told, ready = _Pipe(stack), _Pipe(stack)
        if root:
            ends = [told.writing.fileno(), ready.reading.fileno()]
            passed += ends
            command += ["--uid", "0", "--gid", "0", "--info-fd", str(ends[0]), "--userns-block-fd", str(ends[1])]
            command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_CHOWN"]
        else:
            command += ["--uid", str(spec.user[0]), "--gid", str(spec.user[1])]
        python = "python3" if spec.image else os.path.realpath(sys.executable)
        told_runner: dict[str, object] = {"shelves": shelves}
        if root:  # which sets a sandbox up; its runner becomes somebody else before anything runs in it
            told_runner |= {"user": spec.user, "folders": [spec.workdir, "/tmp", "/dev/shm"]}
        with _on_cores(spec.limits.cpus, turn):
            process = subprocess.Popen(
                [*command, "--", *runner_command(python), json.dumps(told_runner)],
                stdin=link,
                stdout=link,
                stderr=errors,
                pass_fds=passed,
                env={"PATH": os.environ.get("PATH", os.defpath), **mark},
                start_new_session=True,
            )
        if root:
            await _identify(process, spec, told, ready)
    return process


async def _identify(process: subprocess.Popen[bytes], spec: SandboxSpec, told: _Pipe, ready: _Pipe) -> None:
    """Give a sandbox of root's its users, when it says that its namespace is there."""
    try:
        told.writing.close()
        text = await asyncio.to_thread(_object, told.reading)
        if not text:
            return
        user = _FIRST_USER + process.pid
        child = Path(f"/proc/{json.loads(text)['child-pid']}")
        for name, number in (("uid_map", spec.user[0]), ("gid_map", spec.user[1])):
            (child / name).write_text(f"0 0 1\n{number} {user} 1\n")
        ready.writing.write(b"1")
    except (OSError, ValueError, KeyError) as error:
        _kill(process)
        await ended(process)
        raise SandboxDaemonError(f"the users of a sandbox cannot be set: {error}") from error


class _Pipe:
    """Both ends of a pipe."""

    def __init__(self, stack: ExitStack) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self.reading = stack.enter_context(FileIO(reading, "r"))
        self.writing = stack.enter_context(FileIO(writing, "w"))


def _object(file: FileIO) -> bytes:
    """Up to the closing brace: bubblewrap may keep its end open."""
    text = b""
    while not text.rstrip().endswith(b"}") and (data := file.read(4096)):
        text += data
    return text


def _memory_file(stack: ExitStack, content: bytes) -> int:
    number = os.memfd_create("palaestra")
    stack.callback(os.close, number)
    os.write(number, content)
    os.lseek(number, 0, os.SEEK_SET)
    return number


@contextmanager
def _on_cores(cpus: float, turn: int) -> Iterator[None]:
    """What is started here has as many cores, whole ones, and cannot take others."""
    mine = sorted(os.sched_getaffinity(0))
    count = math.ceil(cpus)
    if count >= len(mine):
        yield
        return
    os.sched_setaffinity(0, {mine[(turn * count + n) % len(mine)] for n in range(count)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until a sandbox whose link is closed is gone, with everything in it; kill it where it stays."""
    pause, waited = 0.001, 0.0
    while process.poll() is None:
        if waited >= _STOP:
            _kill(process)
        await asyncio.sleep(pause)
        waited += pause
        pause = min(0.05, 2 * pause)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it and its child, which waits for it for ever when it goes while the sandbox is being made."""
    with suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    process.kill()


def _command(spec: SandboxSpec, filters: list[int]) -> list[str]:
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox", "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--cap-drop", "ALL", "--clearenv", *(_image(spec) if spec.image else _this_machine(spec))]
    command += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        *_memory(_SHARED_MEMORY, "/dev/shm", "1777"),
        "--remount-ro",
        "/dev",
    ]
    command += [*_memory(spec.limits.disk, "/tmp", "1777"), *_parents(spec.workdir)]
    command += _memory(spec.limits.disk, spec.workdir, "0755")
    if not spec.image:
        command += _python(spec)
    command += ["--remount-ro", "/", "--chdir", spec.workdir]
    for number in filters:
        command += ["--seccomp", str(number)]
    return command


def _memory(size: int, place: str, mode: str) -> list[str]:
    return ["--perms", mode, "--size", str(max(4096, size)), "--tmpfs", place]


def _image(spec: SandboxSpec) -> list[str]:
    """A root file system of the user's."""
    command = ["--setenv", "PATH", _PATH]
    for each in sorted(Path(spec.image).iterdir()):
        place = f"/{each.name}"
        if each.is_symlink():
            command += ["--symlink", os.readlink(each), place]
        elif place not in ("/proc", "/dev", "/tmp"):
            command += ["--ro-bind", str(each), place]
    return command


def _this_machine(spec: SandboxSpec) -> list[str]:
    """Programs of this machine, and nothing of its users'."""
    path = [f"{place}/bin" for place in _prefixes(spec).values()]
    command = ["--setenv", "PATH", ":".join([*path, _PATH])]
    for folder in map(Path, _SYSTEM):
        if folder.is_symlink():
            command += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            command += ["--ro-bind", str(folder), str(folder)]
    command += _parents("/etc/ssl/certs")
    for name in _ETC:
        command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return command


def _python(spec: SandboxSpec) -> list[str]:
    """This interpreter and its packages."""
    command = []
    for prefix, place in _prefixes(spec).items():
        if not prefix.startswith(("/usr/", "/opt/")):
            command += [*_parents(place), "--ro-bind", prefix, place]
    return command


def _prefixes(spec: SandboxSpec) -> dict[str, str]:
    """Folders of this interpreter and of its virtual environment, which comes first, and where they are seen."""
    covered = Path(sys.prefix).is_relative_to(spec.workdir)
    return {sys.prefix: _COVERED if covered else sys.prefix, sys.base_prefix: sys.base_prefix}


def _parents(place: str) -> list[str]:
    """Folders above a place, for everybody to pass through; bubblewrap's own are not."""
    above = list(Path(place).parents)[-2::-1]
    return [word for each in above for word in ("--perms", "0755", "--dir", str(each))]
