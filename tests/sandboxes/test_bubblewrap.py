"""What only bubblewrap's sandboxes are: this machine without its users, or another root; and gone with their holder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.sandboxes import bubblewrap, sh, told

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxImageError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.leases import leases
from palaestra.sandboxes.reaper import reap, survey
from palaestra.sandboxes.spec import Limits, SandboxSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def installed() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")


def test_nothing_of_this_machines_users_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("SECRET", "hunter2")

    async def test() -> None:
        backend, spec = bubblewrap()
        async with backend, await backend.start(spec) as sandbox:
            assert "hunter2" not in await told(sandbox, "env; cat /proc/*/environ 2>/dev/null; true")
            for path in (tmp_path / "secret", "/etc/shadow", "/root/.ssh", "/home/*", "/var/log", "/run/*", "/sys/*"):
                assert not (await sh(sandbox, f"ls -d {path}")).ok
            assert await told(sandbox, "find / -xdev -user 0 -writable ! -type l 2>/dev/null; true") == ""
            assert int(await told(sandbox, "ls -d /proc/[0-9]* | wc -l")) < 8
            assert await told(sandbox, "hostname; ls /proc/self/fd | wc -l") == "sandbox\n4\n"

    asyncio.run(test())


def test_this_interpreter_and_its_packages_are_there() -> None:
    async def test() -> None:
        backend, spec = bubblewrap()
        async with backend, await backend.start(spec) as sandbox:
            script = "import sys, msgspec; print(sys.version_info[:3] == tuple(map(int, sys.argv[1:])))"
            version = [str(each) for each in sys.version_info[:3]]
            result = await sandbox.exec(Exec(argv=("python", "-c", script, *version)))
            assert result.stdout.text == "True\n", result

    asyncio.run(test())


def test_cores_are_counted() -> None:
    async def test() -> None:
        backend, spec = bubblewrap()
        async with backend, await backend.start(spec) as sandbox:
            assert await told(sandbox, "nproc") == "1\n"
            assert not (await sh(sandbox, "taskset -p ffff $$")).ok

    before = os.sched_getaffinity(0)
    asyncio.run(test())
    assert os.sched_getaffinity(0) == before


def test_each_process_has_as_much_memory() -> None:
    async def test() -> None:
        backend, _ = bubblewrap()
        async with backend, await backend.start(SandboxSpec(limits=Limits(memory=300 << 20))) as sandbox:
            raising = "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))"
            for script in ("x = bytes(400 << 20)", raising):
                assert not (await sandbox.exec(Exec(argv=("python3", "-c", script)))).ok
            assert (await sandbox.exec(Exec(argv=("python3", "-c", "x = bytes(100 << 20)")))).ok

    asyncio.run(test())


def test_a_root_file_system_of_the_users(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _make_root(root)
    (root / "work" / "inner").mkdir(parents=True)
    (root / "work" / "inner" / "file").write_text("from the image")
    (root / "etc").mkdir()
    (root / "etc" / "mine").write_text("etc")

    async def test() -> None:
        backend = open_backend("bubblewrap")
        async with backend, await backend.start(SandboxSpec(image=str(root))) as sandbox:
            assert await told(sandbox, "cat inner/file /etc/mine; echo; pwd") == "from the imageetc\n/work\n"
            await sandbox.write_file("inner/file", b"changed")
            assert not (await sh(sandbox, "echo >/etc/mine")).ok
            (sibling,) = await sandbox.fork()
            assert await sibling.read_file("inner/file") == b"changed"
        assert (root / "work/inner/file").read_text() == "from the image"

    asyncio.run(test())


def _make_root(root: Path, *absent: str) -> None:
    """The system's Python and shell, and what they link to."""
    programs = [Path(os.path.realpath(f"/usr/bin/{name}")) for name in ("python3", "sh", "cat")]
    version = Path(os.path.realpath("/usr/bin/python3")).name
    extensions = Path(f"/usr/lib/{version}/lib-dynload").glob("_ctypes.*")
    lines = subprocess.run(["ldd", *programs, *extensions], capture_output=True, text=True, check=True).stdout.split()
    libraries = {Path(word) for word in lines if word.startswith("/") and not word.endswith(":")}
    for path in {*programs, *libraries}:
        target = root / "usr" / str(path).removeprefix("/usr").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("python3", "sh"):
        if not (root / "usr/bin" / name).exists():
            (root / "usr/bin" / name).symlink_to(os.path.basename(os.path.realpath(f"/usr/bin/{name}")))
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    spare = ("test", "idlelib", "tkinter", "lib2to3", "__pycache__", "config-*", "dist-packages")
    skipped = shutil.ignore_patterns(*spare, *absent)
    shutil.copytree(f"/usr/lib/{version}", root / "usr/lib" / version, ignore=skipped, symlinks=True)


def test_roots_that_lack_something(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    async def test() -> None:
        backend = open_backend("bubblewrap")
        async with backend:
            with pytest.raises(SandboxImageError, match="no python3"):
                await backend.start(SandboxSpec(image=str(tmp_path / "empty")))
            (tmp_path / "half").mkdir()
            _make_root(tmp_path / "half", "ctypes")
            with pytest.raises(SandboxImageError, match="ctypes"):
                await backend.start(SandboxSpec(image=str(tmp_path / "half")))
            with pytest.raises(SandboxImageError, match="no root file system"):
                await backend.start(SandboxSpec(image=str(tmp_path / "absent")))

    asyncio.run(test())


@pytest.mark.parametrize(
    "spec",
    [
        SandboxSpec(root="writable"),
        SandboxSpec(user=(0, 0)),
        SandboxSpec(workdir="relative"),
        SandboxSpec(workdir="/"),
        SandboxSpec(workdir="/usr/"),
        SandboxSpec(workdir="/tmp/../proc"),
        SandboxSpec(workdir=sys.base_prefix),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_starts(spec: SandboxSpec) -> None:
    async def test() -> None:
        async with open_backend("bubblewrap") as backend:
            with pytest.raises(ConfigError):
                await backend.start(spec)

    asyncio.run(test())


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    async def test() -> None:
        async with open_backend("bubblewrap") as backend:
            with pytest.raises(SandboxDaemonError, match="apt-get install bubblewrap"):
                await backend.start(SandboxSpec())

    asyncio.run(test())


def test_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def test() -> None:
        async with open_backend("bubblewrap") as backend:
            with pytest.raises(SandboxDaemonError, match="user namespaces"):
                await backend.start(SandboxSpec())

    asyncio.run(test())


HOLDER = """
import asyncio, sys
sys.path[:0] = sys.argv[1].split(":")
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.spec import Limits, SandboxSpec
async def main():
    async with open_backend("bubblewrap") as backend:
        sandbox = await backend.start(SandboxSpec(limits=Limits(pids=12)))
        print((await sandbox.exec(Exec(shell="id -u; ls -A; for i in $(seq 20); do sleep 1; done & echo")))
            .stdout.text.split()[0], flush=True)
        bombing = Exec(argv=("sh", "-c", "for i in $(seq 20); do sleep 1 & done; wait"))
        print("fork" in (await sandbox.exec(bombing)).stderr.text, flush=True)
        (sibling,) = await sandbox.fork()
        await sibling.exec(Exec(shell="exec -a marked-%s sleep 1000" % sys.argv[2]))
asyncio.run(main())
"""


def _held(user: int, mark: str, tmp_path: Path) -> subprocess.Popen[str]:
    """A process that holds two sandboxes, as some user."""
    path = [str(ROOT), *(each for each in sys.path if "site-packages" in each)]
    python = sys.executable if user == os.getuid() else "/usr/bin/python3"
    return subprocess.Popen(
        [python, "-c", HOLDER, ":".join(path), mark],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PALAESTRA_CACHE": str(tmp_path / "cache")},
        **({} if user == os.getuid() else {"user": user, "group": user, "extra_groups": []}),  # type: ignore[arg-type]
    )


def _running(mark: str) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if each.read_bytes().startswith(mark.encode()):
                found.append(each.parent.name)
        except OSError:
            continue
    return found


def _until(condition: object, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_its_holder(number: int, tmp_path: Path) -> None:
    mark = f"{os.getpid()}-{number}"
    with _held(os.getuid(), mark, tmp_path) as holder:
        _until(lambda: _running(f"marked-{mark}"))
        holder.send_signal(number)
    _until(lambda: not _running(f"marked-{mark}"))


def test_what_is_killed_while_it_starts_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bubblewrap's own child may not have asked yet to be killed with its parent."""
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path))
    for wait in (0.0, 0.003, 0.006, 0.01, 0.02):
        with subprocess.Popen([sys.executable, "-c", _STARTING], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            time.sleep(wait)
            holder.kill()
    asyncio.run(reap())
    mine = [lease.id for lease in leases()]
    assert not [thing for thing in asyncio.run(survey()).things if thing.kind == "process" and thing.lease in mine]


_STARTING = """
import asyncio
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.spec import SandboxSpec

async def main():
    async with open_backend("bubblewrap") as backend:
        print("now", flush=True)
        await backend.start(SandboxSpec())

asyncio.run(main())
"""


def test_any_user_may_have_them() -> None:
    """Root's sandboxes and those of others are made in two ways; the limits hold in both."""
    users = [os.getuid()]
    if os.getuid() == 0 and sys.version_info[:2] == _system_python():
        users.append(65534)
    for user in users:
        with tempfile.TemporaryDirectory() as folder:
            os.chown(folder, user, user)
            with _held(user, f"{os.getpid()}-{user}", Path(folder)) as holder:
                assert holder.stdout is not None
                assert [holder.stdout.readline(), holder.stdout.readline()] == ["1000\n", "True\n"]
                holder.kill()


def _system_python() -> tuple[int, ...]:
    script = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, said.split()))


def test_starts_that_are_cancelled_leave_nothing() -> None:
    async def test() -> None:
        backend, spec = bubblewrap()
        async with backend:
            for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
                starting = asyncio.create_task(backend.start(spec))
                await asyncio.sleep(delay)
                starting.cancel()
                await asyncio.wait([starting])
                if not starting.cancelled():
                    await (await starting).close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(test())
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not _sandboxes()


def test_forks_that_are_cancelled_leave_nothing() -> None:
    async def test() -> None:
        backend, spec = bubblewrap()
        async with backend, await backend.start(spec) as parent:
            held = _sandboxes()
            for more in (1, 2, 3):  # siblings that have started when the fork is cancelled
                forking = asyncio.create_task(parent.fork(4))
                while len(_sandboxes() - held) < more and not forking.done():
                    await asyncio.sleep(0.001)
                forking.cancel()
                await asyncio.wait([forking])
                assert forking.cancelled()
                assert _sandboxes() == held
            siblings = await parent.fork(2)
            assert len(siblings) == 2
            await asyncio.gather(*(each.close() for each in siblings))

    asyncio.run(test())


def _sandboxes() -> set[str]:
    """Process ids of this process's sandboxes."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {each for each in children if b"bwrap" in Path(f"/proc/{each}/cmdline").read_bytes()}
