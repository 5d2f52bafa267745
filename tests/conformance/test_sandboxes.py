"""The contract of sandboxes, for every back end that is there, and the bad input that agents are capable of."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.sandboxes import PLACES, Place, bubblewrap, inside, sh, told

from palaestra.errors import ConfigError, SandboxError, SandboxPathError
from palaestra.sandboxes.commands import Chunk, Exec
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.scripted import ScriptedBackend, recording
from palaestra.sandboxes.spec import Limits, SandboxSpec

MIB = 1 << 20


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    chosen: Place = request.param
    return chosen


# Commands.


@inside()
async def test_a_program_and_what_comes_of_it(sandbox: Sandbox) -> None:
    result = await sandbox.exec(Exec(argv=("sh", "-c", "echo out; echo err >&2; exit 3")))
    assert (result.exit_code, result.ending, result.ok) == (3, "exit", False)
    assert (result.stdout.text, result.stderr.text) == ("out\n", "err\n")
    assert 0 < result.seconds < 30


@inside()
async def test_folder_variables_and_input(sandbox: Sandbox) -> None:
    await told(sandbox, "mkdir -p a/b")
    assert await told(sandbox, "pwd", cwd="a/b") == f"{sandbox.spec.workdir}/a/b\n"
    assert await told(sandbox, "pwd; echo $HOME") == f"{sandbox.spec.workdir}\n" * 2
    assert await told(sandbox, 'echo "$X"', env={"X": "ä\n'"}) == "ä\n'\n"
    assert await told(sandbox, "cat", stdin=b"abc") == "abc"
    assert await told(sandbox, "cat; echo end") == "end\n"


@inside()
async def test_much_input_is_read_or_left(sandbox: Sandbox) -> None:
    data = os.urandom(5 * MIB)
    assert await told(sandbox, "wc -c", stdin=data) == f"{len(data)}\n"
    assert (await sandbox.exec(Exec(argv=("true",), stdin=data))).ok
    assert await told(sandbox, "head -c 3 >/dev/null; echo done", stdin=data) == "done\n"


@inside()
async def test_what_cannot_be_started(sandbox: Sandbox) -> None:
    for command in (
        Exec(argv=("no-such-program",)),
        Exec(argv=("./none",)),
        Exec(argv=("/etc",)),
        Exec(argv=("true",), cwd="none"),
        Exec(argv=("true",), cwd="/etc/passwd/x"),
        Exec(argv=("a\0b",)),
        Exec(argv=("true",), env={"A": "\0"}),
        Exec(),
        Exec(argv=("true",), shell="true"),
    ):
        with pytest.raises(SandboxPathError):
            await sandbox.exec(command)
    assert await told(sandbox, "echo alive") == "alive\n"


@inside()
async def test_a_signal_is_told(sandbox: Sandbox) -> None:
    result = await sh(sandbox, "kill -TERM $$")
    assert (result.exit_code, result.ending) == (143, "signal")


@inside(output=1000)
async def test_of_much_output_head_and_tail_are_kept(sandbox: Sandbox) -> None:
    result = await sh(sandbox, "seq 1 10000; seq 1 3 >&2")
    whole = "".join(f"{n}\n" for n in range(1, 10001)).encode()
    assert (result.stdout.head, result.stdout.tail) == (whole[:500], whole[-500:])
    assert result.stdout.dropped == len(whole) - 1000
    assert result.stderr.text == "1\n2\n3\n"
    assert not result.stderr.tail
    exact = await sh(sandbox, "head -c 1000 /dev/zero")
    assert exact.stdout.head == bytes(1000)
    assert not exact.stdout.tail
    assert (await sh(sandbox, "seq 1 10000", output=0)).stdout.dropped == len(whole)
    assert (await sh(sandbox, "seq 1 10000", output=1 << 20)).stdout.head == whole


@inside()
async def test_output_is_told_as_it_comes(sandbox: Sandbox) -> None:
    came: list[tuple[float, Chunk]] = []
    result = await sandbox.exec(
        Exec(shell="echo one; sleep 0.5; echo two >&2; head -c 200000 /dev/zero"),
        lambda chunk: came.append((time.monotonic(), chunk)),
    )
    assert result.ok
    assert came[0][1] == Chunk(stream="stdout", data=b"one\n")
    assert came[-1][0] - came[0][0] > 0.4
    assert b"".join(each.data for _, each in came if each.stream == "stderr") == b"two\n"
    assert b"".join(each.data for _, each in came if each.stream == "stdout") == b"one\n" + bytes(200000)
    assert max(len(each.data) for _, each in came) <= 1 << 16


@inside()
async def test_a_slow_listener_holds_the_command_up(sandbox: Sandbox) -> None:
    listened, seen = asyncio.Event(), 0

    async def listen(chunk: Chunk) -> None:
        nonlocal seen
        seen += len(chunk.data)
        await listened.wait()

    running = asyncio.create_task(sandbox.exec(Exec(shell="head -c 50000000 /dev/zero; echo >done"), listen))
    await asyncio.sleep(0.5)
    with pytest.raises(SandboxPathError):
        await sandbox.read_file("done")
    assert seen < 1 << 20
    listened.set()
    assert (await running).ok
    assert seen == 50_000_000


@inside()
async def test_commands_run_at_the_same_time(sandbox: Sandbox) -> None:
    script = "echo >here%d; until test $(ls -d here* | wc -l) = 10; do sleep 0.05; done; echo %d"
    results = await asyncio.gather(*(sh(sandbox, script % (n, n)) for n in range(10)))
    assert [each.stdout.text for each in results] == [f"{n}\n" for n in range(10)]


@inside()
async def test_a_long_script_and_many_arguments(sandbox: Sandbox) -> None:
    assert await told(sandbox, "echo begun\n" + "# filler\n" * 60000 + "echo end") == "begun\nend\n"
    many = await sandbox.exec(Exec(argv=("echo", *["a" * 1000] * 500), output=MIB))
    assert len(many.stdout.head) == 500 * 1001
    too_many = await sandbox.exec(Exec(argv=("echo", "a" * 500_000)))
    assert not too_many.ok
    with pytest.raises(SandboxError):
        await sh(sandbox, "#" * (17 << 20))
    session = await sandbox.session()
    assert (await session.run("echo begun\n" + "# filler\n" * 20000 + "echo end")).stdout.text == "begun\nend\n"
    for script in ("a\0b", "\ud800", "#" * (17 << 20)):
        with pytest.raises(SandboxError):
            await session.run(script)
    assert (await session.run("echo still")).stdout.text == "still\n"
    assert "long" in too_many.stderr.text


# Commands that do not end as they should.


@inside()
async def test_after_the_time_out_nothing_of_it_runs(sandbox: Sandbox) -> None:
    script = """
    trap '' TERM INT HUP
    setsid sleep 600.1 &
    (setsid sh -c 'trap "" TERM; sleep 600.2 & sleep 600.3' &)
    python3 -c 'import os,time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 100)
time.sleep(600.4)' &
    echo begun
    while :; do :; done
    """
    began = time.monotonic()
    result = await sh(sandbox, script, timeout=5)
    assert (result.exit_code, result.ending, result.stdout.text) == (124, "timeout", "begun\n")
    assert 5 <= time.monotonic() - began < 50
    assert await told(sandbox, "pgrep -af 'sleep.60[0]' | wc -l") == "0\n"


@inside()
async def test_other_commands_outlive_a_time_out(sandbox: Sandbox) -> None:
    await told(sandbox, "sleep 300 >/dev/null 2>&1 & echo $! >background")
    other = asyncio.create_task(sh(sandbox, "sleep 2; echo unharmed"))
    assert (await sh(sandbox, "sleep 60", timeout=0.3)).ending == "timeout"
    assert (await other).stdout.text == "unharmed\n"
    assert await told(sandbox, "kill -0 $(cat background) && echo lives") == "lives\n"


@inside()
async def test_what_a_command_leaves_running_does_not_hold_it_up(sandbox: Sandbox) -> None:
    script = "(until test -e go; do sleep 0.05; done; echo late; echo late >late; echo >end) & echo begun"
    assert await told(sandbox, script) == "begun\n"
    assert await told(sandbox, "echo >go; until test -e end; do sleep 0.05; done; cat late") == "late\n"


@inside()
async def test_cancelling_stops_a_command(sandbox: Sandbox) -> None:
    running = asyncio.create_task(sh(sandbox, "sleep 777 & sleep 777"))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await told(sandbox, "pgrep -af 'sleep.77[7]' | wc -l") == "0\n"


@inside()
async def test_what_is_cancelled_is_gone_when_its_call_returns(sandbox: Sandbox) -> None:
    for _ in range(5):
        running = asyncio.create_task(sh(sandbox, "while :; do echo x >> grows; done"))
        while not await told(sandbox, "cat grows 2>&1 | head -c 1"):
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait([running])
        size = len(await sandbox.read_file("grows", limit=1 << 30))
        await asyncio.sleep(0.05)
        assert len(await sandbox.read_file("grows", limit=1 << 30)) == size


@inside(flood=50 * MIB)
async def test_a_flood_is_ended(sandbox: Sandbox) -> None:
    seen = 0

    def count(chunk: Chunk) -> None:
        nonlocal seen
        seen += len(chunk.data)

    result = await sandbox.exec(Exec(shell="yes", timeout=60), count)
    assert (result.exit_code, result.ending) == (137, "flood")
    assert 50 * MIB <= seen <= 52 * MIB
    assert len(result.stdout.head) + len(result.stdout.tail) == sandbox.spec.limits.output


@pytest.mark.slow
@inside(flood=1100 * MIB)
async def test_a_gigabyte_is_printed(sandbox: Sandbox) -> None:
    result = await sh(sandbox, "head -c 1073741824 /dev/zero", timeout=100)
    assert result.ok
    assert result.stdout.dropped == 1024 * MIB - sandbox.spec.limits.output


@inside(pids=64)
async def test_a_fork_bomb_is_ended(sandbox: Sandbox) -> None:
    result = await sh(sandbox, "bomb() { bomb | bomb & }; bomb; sleep 100", timeout=2)
    assert result.ending == "timeout"
    assert await told(sandbox, "echo alive") == "alive\n"
    python = "import os\nwhile True:\n try: os.fork() or os.setsid()\n except OSError: pass"
    assert (await sandbox.exec(Exec(argv=("python3", "-c", python), timeout=2))).ending == "timeout"
    assert int(await told(sandbox, "ls -d /proc/[0-9]* | wc -l")) < 8


@inside(pids=32)
async def test_while_there_are_no_more_processes_it_answers(sandbox: Sandbox) -> None:
    script = """import os, time
try:
    while os.fork(): pass
except OSError: open("full", "w").close()
time.sleep(600)"""
    bomb = asyncio.create_task(sandbox.exec(Exec(argv=("python3", "-c", script))))
    await _there(sandbox, "full")
    await sandbox.write_file("note", b"written")
    assert await sandbox.read_file("note") == b"written"
    refused = await sh(sandbox, "echo")
    assert (refused.exit_code, refused.ending) == (126, "exit")
    assert "unavailable" in refused.stderr.text
    session = await sandbox.session()
    assert (await session.run("echo")).exit_code == 126
    bomb.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bomb
    assert await told(sandbox, "echo alive") == "alive\n"
    assert (await session.run("echo alive")).stdout.text == "alive\n"


async def _there(sandbox: Sandbox, path: str) -> None:
    """Wait for a file."""
    for _ in range(600):
        try:
            await sandbox.read_file(path)
            return
        except SandboxPathError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"no {path}")


@inside(memory=200 * MIB)
async def test_memory_has_a_limit(sandbox: Sandbox) -> None:
    result = await sandbox.exec(Exec(argv=("python3", "-c", "x = b'a' * (1 << 30)"), timeout=30))
    assert not result.ok
    assert result.ending in ("memory", "exit")
    assert result.ending == "memory" or "MemoryError" in result.stderr.text
    assert await told(sandbox, "echo alive") == "alive\n"


@inside(disk=20 * MIB)
async def test_disks_have_a_size(sandbox: Sandbox) -> None:
    for folder in (".", "/tmp"):
        result = await sh(sandbox, f"head -c 100000000 /dev/zero >{folder}/big; rm {folder}/big")
        assert "space" in result.stderr.text
    await sh(sandbox, "head -c 100000000 /dev/zero >big")
    with pytest.raises(SandboxPathError, match="space"):
        await sandbox.write_file("more", bytes(2 * MIB))
    assert await told(sandbox, "ls -A; rm big") == "big\n"
    await sandbox.write_file("more", bytes(2 * MIB))


@inside(lifetime=2.0)
async def test_its_time_ends(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError):
        await sh(sandbox, "sleep 30")
    with pytest.raises(SandboxError):
        await sh(sandbox, "true")


# What it may not do.


@inside()
async def test_it_is_nobody_and_can_do_nothing(sandbox: Sandbox) -> None:
    user, group = sandbox.spec.user
    assert await told(sandbox, "id -u; id -g; id -G") == f"{user}\n{group}\n{group}\n"
    status = dict(line.split(":\t", 1) for line in (await told(sandbox, "cat /proc/self/status")).splitlines())
    for name in ("CapEff", "CapPrm", "CapAmb"):
        assert int(status[name], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for script in (
        "unshare -U true",
        "unshare -m true",
        "mount -t tmpfs x /mnt",
        "chroot / true",
        "kill -9 1",
        "su -c id",
    ):
        await sh(sandbox, script)
    assert await told(sandbox, "unshare -Ur id -u 2>/dev/null || echo refused") == "refused\n"


@inside()
async def test_there_is_no_network(sandbox: Sandbox) -> None:
    script = """import socket
print(sorted(name for _, name in socket.if_nameindex()))
s = socket.socket(); s.settimeout(3)
try: s.connect(("1.1.1.1", 53))
except OSError as error: print("no")"""
    assert (await sandbox.exec(Exec(argv=("python3", "-c", script)))).stdout.text == "['lo']\nno\n"


@inside()
async def test_only_its_folders_can_be_written(sandbox: Sandbox) -> None:
    for folder in ("/", "/etc", "/usr/bin", "/dev", "/proc/sys/kernel"):
        assert not (await sh(sandbox, f"touch {folder}/mine")).ok
        with pytest.raises(SandboxPathError):
            await sandbox.write_file(f"{folder}/mine", b"")
    await told(sandbox, "touch mine /tmp/mine /dev/null && ! test -e /etc/shadow -a -r /etc/shadow")


@inside()
async def test_the_first_process_is_out_of_reach(sandbox: Sandbox) -> None:
    script = """import os, signal
for number in set(signal.Signals) - {signal.SIGCHLD}:
    try: os.kill(1, number)
    except OSError: pass
for name in ("mem", "environ", "fd/0", "fd/128", "fd/129"):
    for mode in ("rb", "wb"):
        try: open(f"/proc/1/{name}", mode).read(1); print("open", name)
        except OSError: pass
print("tried")"""
    assert (await sandbox.exec(Exec(argv=("python3", "-c", script)))).stdout.text == "tried\n"
    assert await told(sandbox, "cat /proc/1/comm >/dev/null; echo alive") == "alive\n"


# Sessions.


@inside()
async def test_a_session_keeps_its_state(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    await session.run("mkdir -p d && cd d; A='x y'; f() { echo \"f: $1\"; }; export B=2")
    result = await session.run("pwd; echo \"$A\"; f hi; sh -c 'echo $B'; echo err >&2; false")
    assert result.stdout.text == f"{sandbox.spec.workdir}/d\nx y\nf: hi\n2\n"
    assert (result.stderr.text, result.exit_code, result.ending) == ("err\n", 1, "exit")
    assert (await session.run("true")).ok
    await session.close()
    await session.close()
    with pytest.raises(SandboxError):
        await session.run("true")


@inside()
async def test_a_session_takes_any_script(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    for script, expected in (
        ("echo 'it''s'; echo \"a'b\"", "its\na'b\n"),
        ("cat <<'END'\n'quoted' $X\nEND\necho after", "'quoted' $X\nafter\n"),
        ("cat <<END\nopen", "open\n"),
        ("for i in 1 2 3; do\necho $i\ndone", "1\n2\n3\n"),
        ("echo no newline at the end | tr -d '\\n'", "no newline at the end"),
        ("cat", ""),
        ('read x; echo "[$x]"', "[]\n"),
        ("break; continue; echo on", "on\n"),
        ("# nothing", ""),
        ("", ""),
        ("echo ä", "ä\n"),
        ("exec 3>&1; echo three >&3; exec 3>&-", "three\n"),
        ("echo $(( 1 +", ""),
        ("if true", ""),
        ('echo "open', ""),
        ("echo still here", "still here\n"),
    ):
        result = await session.run(script, timeout=20)
        assert (result.stdout.text, result.ending) == (expected, "exit"), script
    await session.close()


@inside()
async def test_a_session_begins_anew_after_a_time_out(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    await session.run("mkdir here; cd here; A=1; sleep 888 &")
    result = await session.run("echo begun; sleep 888", timeout=0.5)
    assert (result.exit_code, result.ending, result.stdout.text) == (124, "timeout", "begun\n")
    again = await session.run('pwd; echo "[$A]"')
    assert again.stdout.text == f"{sandbox.spec.workdir}/here\n[]\n"
    assert await told(sandbox, "pgrep -af 'sleep.88[8]' | wc -l") == "0\n"


@inside()
async def test_a_session_survives_its_shell(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    result = await session.run("cd /tmp; echo last; exit 7")
    assert (result.exit_code, result.ending, result.stdout.text) == (7, "exit", "last\n")
    assert (await session.run("kill -9 $$")).ending == "signal"
    assert (await session.run("set -e; false; echo no")).exit_code == 1
    assert (await session.run("exec echo replaced")).stdout.text == "replaced\n"
    assert (await session.run("echo back")).stdout.text == "back\n"


@inside()
async def test_output_cannot_forge_the_end_of_a_command(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    script = """for fd in 3 4 5; do for s in 0 'x 0'; do echo $s >&$fd; done; done 2>/dev/null
    sh -c 'echo x 0 >&4' 2>/dev/null; sleep 0.5; echo real; (exit 5)"""
    result = await session.run(script)
    assert (result.stdout.text, result.exit_code) == ("real\n", 5)


@inside(flood=10 * MIB)
async def test_background_jobs_of_a_session(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    assert (await session.run("sleep 999 & echo $! >job; echo begun")).stdout.text == "begun\n"
    assert await told(sandbox, "kill -0 $(cat job) && echo lives") == "lives\n"
    assert (await session.run("kill %1; wait; echo gone")).stdout.text == "gone\n"
    assert (await session.run("yes")).ending == "flood"
    await session.run("sleep 999 & echo $! >job")
    await session.close()
    assert await told(sandbox, "kill -0 $(cat job) 2>/dev/null || echo ended") == "ended\n"


# Files.


@inside()
async def test_files_are_written_and_read(sandbox: Sandbox) -> None:
    data = os.urandom(3 * MIB)
    await sandbox.write_file("deep/er/file", data, 0o640)
    assert await sandbox.read_file("deep/er/file") == data
    assert await sandbox.read_file(f"{sandbox.spec.workdir}/deep/er/file", len(data)) == data
    assert await told(sandbox, "stat -c '%a %s' deep/er/file; ls -A deep/er") == f"640 {len(data)}\nfile\n"
    await sandbox.write_file("deep/er/file", b"")
    assert await sandbox.read_file("deep/er/file") == b""
    assert await sandbox.read_file("/proc/self/mounts")


@inside()
async def test_files_that_cannot_be_read_or_written(sandbox: Sandbox) -> None:
    await told(
        sandbox, "mkdir folder; mkfifo pipe; ln -s loop loop; echo >none; chmod 0 none; head -c 101 /dev/zero >big"
    )
    for path in ("absent", "folder", "pipe", "loop", "none", "/dev/zero", "/dev/tty", "", "a\0b", "x" * 5000, "big/x"):
        with pytest.raises(SandboxPathError):
            await sandbox.read_file(path, 100)
    with pytest.raises(SandboxPathError, match="100"):
        await sandbox.read_file("big", 100)
    for path in ("folder", "big/x", "", "/", "a\0b", "x" * 5000, "/proc/x"):
        with pytest.raises(SandboxPathError):
            await sandbox.write_file(path, b"x")


@inside()
async def test_a_link_is_replaced_not_followed(sandbox: Sandbox) -> None:
    await told(sandbox, "echo target >target; ln -s target link; ln -s /etc/passwd out; mkfifo pipe")
    for name in ("link", "out", "pipe"):
        await sandbox.write_file(name, b"new")
    assert await told(sandbox, "cat target link out pipe; find . -type l") == "target\nnewnewnew"


@inside()
async def test_names_that_nobody_expects(sandbox: Sandbox) -> None:
    names = ["new\nline", " ", "-rf", "*", "\udcff\udcfe", "ä", "'\"\\", "\t\x1b[31m"]
    for name in names:
        await sandbox.write_file(name, name.encode("utf-8", "surrogateescape"))
    for name in names:
        assert await sandbox.read_file(name) == name.encode("utf-8", "surrogateescape")
    assert await told(sandbox, "ls -A | wc -l; ls -1qA | wc -l") == "9\n8\n"
    (copy,) = await sandbox.fork()
    async with copy:
        for name in names:
            assert await copy.read_file(name) == name.encode("utf-8", "surrogateescape")


@inside()
async def test_folders_are_copied_there_and_back(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner" / "empty").mkdir(parents=True)
    (source / "run.sh").write_text("echo ran")
    (source / "run.sh").chmod(0o755)
    (source / "inner" / "big").write_bytes(os.urandom(2 * MIB))
    (source / "inner" / "link").symlink_to("../run.sh")
    os.utime(source / "run.sh", (1e9, 1e9))
    await sandbox.write_file("there/before", b"stays")
    await sandbox.write_file("there/run.sh", b"goes")
    await sandbox.upload(source, "there")
    assert await told(sandbox, "./there/run.sh; cat there/before; readlink there/inner/link") == "ran\nstays../run.sh\n"
    await sandbox.upload(source / "run.sh", "single")
    assert await told(sandbox, "stat -c '%a %Y' single") == "755 1000000000\n"
    await sandbox.download("there", tmp_path / "back")
    assert (tmp_path / "back/inner/big").read_bytes() == (source / "inner/big").read_bytes()
    assert (tmp_path / "back/run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "back/run.sh").stat().st_mtime == 1e9
    assert os.readlink(tmp_path / "back/inner/link") == "../run.sh"
    assert (tmp_path / "back/inner/empty").is_dir()
    await sandbox.download("single", tmp_path / "single")
    assert (tmp_path / "single").read_text() == "echo ran"


@inside()
async def test_copies_that_cannot_be_made(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    await told(sandbox, "mkdir folder; head -c 5000000 /dev/zero >big; mkfifo pipe")
    for source, target in ((tmp_path / "absent", "x"), (tmp_path / "file", "folder"), (tmp_path, "/etc/x")):
        with pytest.raises(SandboxPathError):
            await sandbox.upload(source, target)
    for name, limit in (("absent", MIB), ("big", MIB), ("pipe", MIB), (".", MIB)):
        with pytest.raises(SandboxPathError):
            await sandbox.download(name, tmp_path / "got", limit)
        assert not (tmp_path / "got").exists()
    with pytest.raises(SandboxPathError):
        await sandbox.download("folder", tmp_path / "file")


@inside()
async def test_what_is_downloaded_is_harmless(sandbox: Sandbox, tmp_path: Path) -> None:
    await told(
        sandbox,
        "mkdir -p t/in; cd t; ln -s /etc/passwd abs; ln -s ../../../etc up; ln -s .. above; ln -s in/../../x sly;"
        "ln -s . here; ln -s here/../.. slyer; ln -s in ok; ln -s ../in in/fine; echo >in/f; chmod 6777 in/f; mkfifo p;"
        "ln in/f hard; echo x >in/unreadable; chmod 0 in/unreadable; mkdir shut; echo y >shut/y; chmod 0 shut;"
        "truncate -s 50M sparse",
    )
    await sandbox.download("t", tmp_path / "t", 100 * MIB)
    found = sorted(str(each.relative_to(tmp_path / "t")) for each in (tmp_path / "t").rglob("*"))
    assert found == ["hard", "here", "in", "in/f", "in/fine", "in/unreadable", "ok", "shut", "shut/y", "sparse"]
    assert (tmp_path / "t/in/f").stat().st_mode & 0o7777 == 0o777
    assert (tmp_path / "t/sparse").stat().st_size == 50 * MIB
    with pytest.raises(SandboxPathError):
        await sandbox.download("t", tmp_path / "u", 10 * MIB)


# Snapshots and forks.


@inside()
async def test_siblings_have_the_files_and_go_their_own_ways(sandbox: Sandbox) -> None:
    await told(
        sandbox,
        "mkdir -p d; echo one >d/f; ln -s f d/l; ln d/f hard; chmod 700 d; truncate -s 1G sparse; mkfifo pipe;"
        "echo s >shut; chmod 0 shut; sleep 500 >/dev/null 2>&1 &",
    )
    siblings = await sandbox.fork(3)
    assert len({each.id for each in (*siblings, sandbox)}) == 4
    for n, each in enumerate(siblings):
        await told(each, f"echo {n} >mine; echo more >>d/f")
    for n, each in enumerate(siblings):
        listing = (
            "cat mine d/l hard; stat -c '%a' d shut; stat -c '%s %b' sparse; test -p pipe; pgrep sleep || echo none"
        )
        assert await told(each, listing) == f"{n}\none\nmore\none\nmore\n700\n0\n1073741824 0\nnone\n"
        assert each.spec == sandbox.spec
        await each.close()
    assert await told(sandbox, "cat d/f; test ! -e mine; pgrep -c sleep") == "one\n1\n"


@inside()
async def test_a_snapshot_is_of_one_moment(sandbox: Sandbox) -> None:
    await told(sandbox, "i=0; (while :; do i=$((i+1)); echo $i >a; echo $i >b; done) >/dev/null 2>&1 &")
    await _there(sandbox, "b")
    snapshot = await sandbox.snapshot()
    await told(sandbox, 'x=$(cat a b); while test "$x" = "$(cat a b)"; do sleep 0.1; done')
    for _ in range(2):
        async with await snapshot.start() as started:
            first, second = int((await started.read_file("a")) or b"0"), int((await started.read_file("b")) or b"0")
            assert first - second in (0, 1) or 0 in (first, second)
    await snapshot.delete()
    await snapshot.delete()
    with pytest.raises(SandboxError):
        await snapshot.start()


@inside()
async def test_forks_of_forks(sandbox: Sandbox) -> None:
    await sandbox.write_file("f", b"0")
    chain = [sandbox]
    for n in range(3):
        (following,) = await chain[-1].fork()
        await following.write_file("f", str(n).encode())
        chain.append(following)
    assert [await each.read_file("f") for each in chain] == [b"0", b"0", b"1", b"2"]
    await asyncio.gather(*(each.close() for each in chain))


# Ends.


@inside()
async def test_a_closed_sandbox_says_so(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    running = asyncio.create_task(sh(sandbox, "sleep 100"))
    await asyncio.sleep(0.3)
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(SandboxError):
        await running
    for call in (sandbox.read_file("x"), sh(sandbox, "true"), sandbox.snapshot(), sandbox.fork(), session.run("true")):
        with pytest.raises(SandboxError):
            await call
    await session.close()


def test_a_back_end_closes_what_it_started(place: Place) -> None:
    async def test() -> None:
        backend, spec = place()
        first, second = await asyncio.gather(backend.start(spec), backend.start(spec))
        await first.write_file("x", b"")
        snapshot = await first.snapshot()
        await backend.close()
        await backend.close()
        for each in (first, second):
            with pytest.raises(SandboxError):
                await sh(each, "true")
        with pytest.raises(SandboxError):
            await snapshot.start()

    asyncio.run(test())


def test_what_the_spec_says(place: Place) -> None:
    async def test() -> None:
        backend, spec = place()
        wanted = replace(spec, workdir="/home/agent/work", env={"A": "b c"}, user=(1234, 2345), limits=Limits(cpus=1.0))
        async with backend, await backend.start(wanted) as sandbox:
            assert await told(sandbox, "pwd; id -u; id -g; echo $A; echo $HOME") == (
                "/home/agent/work\n1234\n2345\nb c\n/home/agent/work\n"
            )
            await sandbox.write_file("x", b"y")
            (copy,) = await sandbox.fork()
            async with copy:
                assert await told(copy, "cat /home/agent/work/x; stat -c '%u %g' x") == "y1234 2345\n"

    asyncio.run(test())


def test_no_such_image(place: Place) -> None:
    async def test() -> None:
        backend, spec = place()
        async with backend:
            with pytest.raises(SandboxError):
                await backend.start(SandboxSpec(image="/no/such/image"))
            async with await backend.start(spec) as sandbox:
                assert await told(sandbox, "echo alive") == "alive\n"

    asyncio.run(test())


# The network that is allowed.


def test_only_hosts_that_are_named_can_be_reached(place: Place) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(3) if head.startswith(b"POST") else head.split(b" ")[1]
        body += b"x" * 3_000_000
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    script = """import os, socket, sys, urllib.request, urllib.error
first, second = sys.argv[1:]
for url, data in ((first + "/path?q", None), (first, b"abc"), (second, None), ("http://x.invalid/", None)):
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer: body = answer.read(); print(len(body), body[:7])
    except urllib.error.HTTPError as error: print(error.code, error.read().decode().strip())
proxy = os.environ["https_proxy"].split("//")[1].split(":")
tunnel = socket.create_connection((proxy[0], int(proxy[1])), timeout=20)
where = sys.argv[1].split("//")[1]
tunnel.sendall(f"CONNECT {where} HTTP/1.1\\r\\n\\r\\n".encode())
print(tunnel.recv(12))
tunnel.sendall(b"GET /direct HTTP/1.1\\r\\n\\r\\n")
got = b""
while data := tunnel.recv(65536): got += data
print(got.count(b"/direct"), len(got) > 3_000_000)
"""

    async def test() -> None:
        backend, spec = place()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        refused = await asyncio.start_server(answer, "127.0.0.1", 0)
        port, other = (each.sockets[0].getsockname()[1] for each in (server, refused))
        wanted = replace(spec, network=(f"127.0.0.1:{port}",))
        async with server, refused, backend, await backend.start(wanted) as sandbox:
            urls = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"
            result = await sandbox.exec(Exec(argv=("python3", "-c", script, *urls), env={"no_proxy": ""}))
            assert result.stdout.text.splitlines() == [
                "3000007 b'/path?q'",
                "3000003 b'abcxxxx'",
                f"403 127.0.0.1:{other} is not among the hosts that this sandbox may reach",
                "403 x.invalid:80 is not among the hosts that this sandbox may reach",
                "b'HTTP/1.1 200'",
                "1 True",
            ], result.stderr.text
            names = "python3 -c 'import socket; print(socket.if_nameindex())'"
            assert await told(sandbox, names) == "[(1, 'lo')]\n"

    asyncio.run(test())


def test_hosts_that_make_no_sense(place: Place) -> None:
    async def test() -> None:
        backend, spec = place()
        async with backend:
            for name in ("example.org", ":80", "example.org:http", "example.org:0", "example.org:70000"):
                with pytest.raises(ConfigError):
                    await backend.start(replace(spec, network=(name,)))

    asyncio.run(test())


# Scripted sandboxes: what was seen of real ones is seen again, where it depends on neither time nor chance.

REPLAYED = [
    test_a_program_and_what_comes_of_it,
    test_folder_variables_and_input,
    test_what_cannot_be_started,
    test_of_much_output_head_and_tail_are_kept,
    test_commands_run_at_the_same_time,
    test_other_commands_outlive_a_time_out,
    test_cancelling_stops_a_command,
    test_a_session_keeps_its_state,
    test_a_session_takes_any_script,
    test_files_that_cannot_be_read_or_written,
    test_a_link_is_replaced_not_followed,
    test_names_that_nobody_expects,
    test_copies_that_cannot_be_made,
    test_what_is_downloaded_is_harmless,
    test_siblings_have_the_files_and_go_their_own_ways,
    test_forks_of_forks,
    test_a_closed_sandbox_says_so,
    test_a_back_end_closes_what_it_started,
    test_what_the_spec_says,
    test_no_such_image,
    test_hosts_that_make_no_sense,
]


@pytest.mark.parametrize("test", REPLAYED, ids=lambda test: str(test.__name__))
def test_scripted_sandboxes_replay(test: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "recording.jsonl"

    def again(name: str, opened: Callable[[], Backend]) -> None:
        (tmp_path / name).mkdir()
        folder = {"tmp_path": tmp_path / name} if "tmp_path" in inspect.signature(test).parameters else {}
        test(place=lambda: (opened(), bubblewrap()[1]), **folder)

    again("recorded", lambda: recording(bubblewrap()[0], file))
    again("by content", lambda: ScriptedBackend(file))
    again("in order", lambda: ScriptedBackend(file, match="order"))
