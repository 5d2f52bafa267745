"""What a sandbox cannot do: read from the kernel, and tried."""

import asyncio

import pytest
from support.docker_engines import containers, engine_host
from support.dockerd import BASE
from support.sandboxes import sh, told

from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.docker.backend import DockerBackend
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

PROBE = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, do):
    try:
        outcome = do()
    except OSError as error:
        outcome = error.strerror
    print(name, outcome)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "done"
attempt("mount", lambda: call(165, b"none", b"/work", b"tmpfs", 0, 0))
attempt("unshare-user", lambda: call(272, 0x10000000))
attempt("unshare-net", lambda: call(272, 0x40000000))
attempt("setuid", lambda: os.setuid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("chroot", lambda: os.chroot("/work"))
attempt("mknod", lambda: os.mknod("/work/sda", 0o60666, os.makedev(254, 0)))
attempt("ptrace", lambda: call(101, 16, 1, 0, 0))
attempt("memory-of-1", lambda: open("/proc/1/mem", "rb").read(1))
attempt("stdin-of-1", lambda: open("/proc/1/fd/0", "rb").read(1))
attempt("kill-1", lambda: os.kill(1, 9))
attempt("nice", lambda: os.nice(-5))
attempt("sysrq", lambda: open("/proc/sysrq-trigger", "w").write("b"))
attempt("cgroup", lambda: open("/sys/fs/cgroup/memory/memory.limit_in_bytes", "w").write("-1"))
attempt("keys", lambda: call(250, 0, -3, 1))
attempt("bpf", lambda: call(321, 0, 0, 0))
attempt("connect", lambda: socket.create_connection(("1.1.1.1", 53), 2))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("links", lambda: sorted(name for _, name in socket.if_nameindex()))
"""
REFUSED = "Operation not permitted"


@pytest.fixture(scope="module")
def host():
    return engine_host()


def run(host, test, **limits):
    async def inside():
        spec = SandboxSpec(image=BASE, limits=Limits(**limits))
        async with DockerBackend(host) as backend, await backend.start(spec) as sandbox:
            await test(sandbox)

    asyncio.run(inside())


def test_the_kernel_says_so(host):
    async def test(sandbox):
        for process in ("self", "1"):
            status = await told(sandbox, f"cat /proc/{process}/status")
            lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            capabilities = {name: int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
            assert set(capabilities.values()) == {0}
            assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
            assert set(lines["Uid"].split()) == set(lines["Gid"].split()) == {"1000"}
            assert lines["Groups"].split() in ([], ["1000"])

    run(host, test)


def test_what_is_tried_is_refused(host):
    async def test(sandbox):
        result = await sandbox.exec(Exec(argv=("python3", "-c", PROBE)))
        outcomes = dict(line.split(" ", 1) for line in result.stdout.text.splitlines())
        refused = (
            "mount",
            "unshare-user",
            "unshare-net",
            "setuid",
            "setgroups",
            "chroot",
            "mknod",
            "keys",
            "bpf",
            "raw",
        )
        assert {name: outcomes[name] for name in refused} == dict.fromkeys(refused, REFUSED)
        assert outcomes["ptrace"] in (REFUSED, "Permission denied")
        assert outcomes["memory-of-1"] == outcomes["stdin-of-1"] == "Permission denied"
        assert outcomes["nice"] in (REFUSED, "Permission denied")
        closed = ("Read-only file system", "Permission denied", "No such file or directory")
        assert outcomes["sysrq"] in closed
        assert outcomes["cgroup"] in closed
        assert outcomes["connect"] == "Network is unreachable"
        assert outcomes["links"] == "['lo']"
        assert await told(sandbox, "echo alive") == "alive\n"

    run(host, test)


def test_the_root_cannot_be_written_to(host):
    async def test(sandbox):
        for path in ("/file", "/etc/passwd", "/usr/bin/python3", "/root/file", "/var/tmp/file", "/.palaestra/file"):
            assert not (await sh(sandbox, f"echo x >> {path}")).ok
        options = dict(line.split()[1::2][:2] for line in (await told(sandbox, "cat /proc/mounts")).splitlines())
        assert options["/"].startswith("ro,")
        assert await told(sandbox, "echo x > file && echo y > /tmp/file && cat file /tmp/file") == "x\ny\n"
        script = "#!/bin/sh\necho ran\n"
        for folder in (".", "/tmp"):
            ran = await told(sandbox, f"printf '{script}' > {folder}/tool; chmod 755 {folder}/tool; {folder}/tool")
            assert ran == "ran\n"

    run(host, test)


def test_nothing_of_the_engine_is_in_it(host):
    async def test(sandbox):
        found = await told(sandbox, "ls -A / /run /var/run 2>/dev/null; cat /proc/self/mounts")
        assert "docker.sock" not in found
        assert ".palaestra" not in found

    run(host, test)


def test_the_processor_is_shared_out(host):
    burn = "import time; end = time.time() + 2\nwhile time.time() < end: pass\nprint(time.process_time())"

    async def test(sandbox):
        many = [sandbox.exec(Exec(argv=("python3", "-c", burn))) for _ in range(3)]
        spent = [float(result.stdout.text) for result in await asyncio.gather(*many)]
        assert sum(spent) < 2 * 0.5 + 0.6

    run(host, test, cpus=0.5)


def test_too_much_memory_is_told_and_survived(host):
    async def test(sandbox):
        result = await sandbox.exec(Exec(argv=("python3", "-c", "b'x' * (300 << 20)")))
        assert (result.ending, result.exit_code) == ("memory", 137)
        result = await sh(sandbox, "python3 -c \"b'x' * (300 << 20)\"; exit $?")
        assert (result.ending, result.exit_code) == ("memory", 137)
        assert await told(sandbox, "echo alive") == "alive\n"

    run(host, test, memory=128 * MIB)


def test_the_work_folder_counts_as_memory(host):
    async def test(sandbox):
        await told(sandbox, "head -c 80000000 /dev/zero > data")
        result = await sandbox.exec(Exec(argv=("python3", "-c", "b'x' * (60 << 20)")))
        assert result.ending == "memory"
        await told(sandbox, "rm data")
        assert (await sandbox.exec(Exec(argv=("python3", "-c", "b'x' * (60 << 20)")))).ok

    run(host, test, memory=128 * MIB)


def test_there_are_no_more_processes_than_allowed(host):
    async def test(sandbox):
        result = await sh(sandbox, "for i in $(seq 40); do sleep 5 & done; wait")
        assert "Resource temporarily unavailable" in result.stderr.text
        assert await told(sandbox, "echo alive") == "alive\n"

    run(host, test, pids=16, seconds=8)


@pytest.mark.parametrize("folder", ["/work", "/tmp"])
def test_the_disk_is_full_at_its_limit(host, folder):
    async def test(sandbox):
        result = await sh(sandbox, f"head -c 20000000 /dev/zero > {folder}/data")
        assert "No space left on device" in result.stderr.text
        assert int(await told(sandbox, f"stat -c %s {folder}/data")) <= 8 * MIB
        await told(sandbox, f"rm {folder}/data; echo x > {folder}/small")

    run(host, test, disk=8 * MIB)


def test_files_without_content_are_counted_too(host):
    many = "import os\nfor n in range(20000): os.close(os.open(f'f{n}', os.O_CREAT))"

    async def test(sandbox):
        result = await sandbox.exec(Exec(argv=("python3", "-c", many)))
        assert "No space left on device" in result.stderr.text
        assert len(await told(sandbox, "ls")) < 16_384 * 7

    run(host, test, disk=8 * MIB)


def test_after_its_lifetime_it_is_gone(host):
    async def test(sandbox):
        for _ in range(100):
            if sandbox.id not in await asyncio.to_thread(containers, host):
                return
            await asyncio.sleep(0.1)
        pytest.fail("it is still there")

    run(host, test, lifetime=2.0)
