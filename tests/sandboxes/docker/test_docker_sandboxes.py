"""Images, snapshots, forks and ends of sandboxes in containers; what all back ends share is in tests/conformance."""

import asyncio
import random
import signal
import subprocess
import sys

import pytest
from aiodocker.exceptions import DockerError
from support.docker_engines import containers, engine_host, make_image, remove_image, things
from support.dockerd import BASE
from support.sandboxes import sh, told

from palaestra.errors import SandboxError
from palaestra.sandboxes.docker.backend import DockerBackend
from palaestra.sandboxes.reaper import reap
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

SPEC = SandboxSpec(image=BASE)
HOLDER = """
import asyncio, sys
from palaestra.sandboxes.docker.backend import DockerBackend
from palaestra.sandboxes.reaper import reap
from palaestra.sandboxes.spec import SandboxSpec

async def main():
    backend = DockerBackend()
    sandbox = await backend.start(SandboxSpec(image="palaestra-base:test"))
    await sandbox.session()
    print(sandbox.id, backend._lease.id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def host():
    return engine_host()


@pytest.fixture(scope="module")
def furnished(host):
    """An image with files in its work folder, and with what images may have beside."""
    files = {
        "work/run.sh": (b"#!/bin/sh\necho ran\n", 0o755),
        "work/src/main.py": (b"print('main')\n", 0o644),
        "work/secret": (b"root's\n", 0o600),
        "data/table": (b"1 2 3\n", 0o644),
    }
    changes = ("VOLUME /data", 'ENTRYPOINT ["/bin/false"]', "ENV COLOUR=green", "USER nobody", "WORKDIR /usr")
    yield make_image(host, "palaestra-furnished:test", files, *changes)
    remove_image(host, "palaestra-furnished:test")


def run(test, host, **settings):
    """Run `test` with a back end of which in the end nothing must be left."""

    async def inside():
        async with DockerBackend(host, **settings) as backend:
            await asyncio.wait_for(test(backend), 240)
            lease = backend._lease.id
        assert things(host, lease) == []

    asyncio.run(inside())


def test_what_an_image_has_is_there_and_belongs_to_the_user(host, furnished):
    async def test(backend):
        async with await backend.start(SandboxSpec(image=furnished)) as sandbox:
            assert await told(sandbox, "./run.sh; python3 src/main.py; cat secret") == "ran\nmain\nroot's\n"
            assert await told(sandbox, "stat -c '%u %g %a' . run.sh src secret") == (
                "1000 1000 755\n1000 1000 755\n1000 1000 755\n1000 1000 600\n"
            )
            assert await told(sandbox, "echo more >> src/main.py; rm secret; ls; echo $COLOUR $HOME; pwd") == (
                "run.sh\nsrc\ngreen /work\n/work\n"
            )
            assert await told(sandbox, "cat /data/table") == "1 2 3\n"
            assert not (await sh(sandbox, "echo x > /data/x")).ok
        others = SandboxSpec(image=furnished, user=(77, 88), workdir="/work/src")
        async with await backend.start(others) as sandbox:
            assert await told(sandbox, "stat -c '%u %g' main.py; ls; id -u; id -g") == "77 88\nmain.py\n77\n88\n"
        many = await asyncio.gather(*(backend.start(SandboxSpec(image=furnished)) for _ in range(3)))
        for sandbox in many:
            assert await told(sandbox, "cat secret") == "root's\n"
        assert len(backend._origins) == 2

    run(test, host)


def test_a_work_folder_that_the_image_lacks(host):
    async def test(backend):
        spec = SandboxSpec(image=BASE, workdir="/srv/deep/folder")
        async with await backend.start(spec) as sandbox:
            assert await told(sandbox, "pwd; echo x > file; ls") == "/srv/deep/folder\nfile\n"

    run(test, host)


def test_an_image_by_its_id_and_a_runtime_by_its_name(host):
    async def test(backend):
        async with await backend.start(SPEC) as sandbox:
            id = sandbox.images[0].id
        async with await backend.start(SandboxSpec(image=id)) as sandbox:
            assert await told(sandbox, "echo here") == "here\n"

    run(test, host, runtime="runc")


def test_a_fork_has_all_that_the_user_could_hide(host):
    prepare = "mkdir -m 0 shut; mkdir d; echo deep > d/file; chmod 0 d/file; chmod 500 d; ln -s /etc/passwd link; \
        mkfifo pipe; ln d/file hard; truncate -s 1T sparse; touch -d @1000 old; printf x > \"$(printf 'a\\nb')\""
    look = "stat -c '%n %a %s %Y %F' -- * | sort; chmod 400 d/file; cat d/file; stat -c %h hard"

    async def test(backend):
        async with await backend.start(SPEC) as sandbox:
            await told(sandbox, prepare)
            (sibling,) = await sandbox.fork()
            nephews = await sibling.fork(2)
            seen = [await told(each, look) for each in (sandbox, sibling, *nephews)]
            assert len(set(seen)) == 1
            assert "deep" in seen[0]

    run(test, host)


def test_a_fork_of_a_full_work_folder_has_all_of_it_and_keeps_nothing_beside(host):
    fill = "for n in 1 2 3; do head -c 5000000 /dev/urandom > $n; done; cat /dev/zero > rest 2>/dev/null; true"

    async def test(backend):
        async with await backend.start(SandboxSpec(image=BASE, limits=Limits(disk=20 * MIB))) as sandbox:
            await told(sandbox, fill)
            before = set(things(host, backend._lease.id))
            siblings = await sandbox.fork(2)
            (nephew,) = await siblings[0].fork()
            seen = [await told(each, "sha256sum *; stat -c %s rest") for each in (sandbox, *siblings, nephew)]
            assert len(set(seen)) == 1
            await asyncio.gather(*backend._later)
            assert [await told(each, "ls -A /.palaestra/files || echo none") for each in siblings] == ["none\n"] * 2
            await asyncio.gather(nephew.close(), *(each.close() for each in siblings))
            assert set(things(host, backend._lease.id)) == before

    run(test, host)


def test_processes_are_held_still_and_go_on(host):
    async def test(backend):
        async with await backend.start(SPEC) as sandbox:
            session = await sandbox.session()
            await session.run("(while :; do date +%s%N >> ticks; cp ticks copy; done) &")
            snapshot = await sandbox.snapshot()
            before = int(await told(sandbox, "wc -l < ticks"))
            await asyncio.sleep(0.5)
            assert int(await told(sandbox, "wc -l < ticks")) > before
            async with await snapshot.start() as sibling:
                assert await told(sibling, "ps -e | wc -l") == "5\n"

    run(test, host)


def test_a_snapshot_outlives_its_sandbox_and_is_removed_with_its_last_sibling(host):
    async def test(backend):
        sandbox = await backend.start(SPEC)
        await told(sandbox, "echo kept > file")
        snapshot = await sandbox.snapshot()
        await told(sandbox, "echo changed > file")
        await sandbox.close()
        one, other = await asyncio.gather(snapshot.start(), snapshot.start())
        await told(one, "echo mine > file")
        assert await told(other, "cat file") == "kept\n"
        await snapshot.delete()
        await snapshot.delete()
        with pytest.raises(SandboxError, match="was deleted"):
            await snapshot.start()
        assert snapshot.id in things(host, backend._lease.id)
        await one.close()
        await other.close()
        assert things(host, backend._lease.id) == []

    run(test, host)


def test_a_writable_root_is_kept_too(host):
    async def test(backend):
        spec = SandboxSpec(image=BASE, root="writable", user=(0, 0))
        async with await backend.start(spec) as sandbox:
            await told(sandbox, "echo root > /opt/file; echo work > file; rm /etc/motd")
            snapshot = await sandbox.snapshot()
            await told(sandbox, "echo later > /opt/file")
            for sibling in (await snapshot.start(), *await sandbox.fork(1)):
                assert (await told(sibling, "cat /opt/file file; ls /etc/motd || true")).startswith(
                    ("root\n", "later\n")
                )
                (nephew,) = await sibling.fork()
                assert await told(nephew, "cat file") == "work\n"

    run(test, host)


def test_a_writable_root_is_still_its_owners(host):
    async def test(backend):
        async with await backend.start(SandboxSpec(image=BASE, root="writable")) as sandbox:
            assert not (await sh(sandbox, "echo x >> /etc/passwd")).ok
            assert await told(sandbox, "grep CapEff /proc/self/status") == "CapEff:\t0000000000000000\n"

    run(test, host)


def test_no_fork_is_left_where_one_fails(host):
    async def test(backend):
        async with await backend.start(SPEC) as sandbox:
            await told(sandbox, "head -c 30000000 /dev/urandom > data")
            await asyncio.gather(*backend._later)
            before = set(things(host, backend._lease.id))
            sandbox.spec = SandboxSpec(image=BASE, limits=Limits(disk=20 * MIB))
            with pytest.raises(SandboxError, match="does not fit"):
                await sandbox.fork(3)
            await asyncio.gather(*backend._later)
            assert set(things(host, backend._lease.id)) == before
            assert await told(sandbox, "ls") == "data\n"

    run(test, host)


def test_where_the_engine_cannot_hold_processes_the_runner_does(host, monkeypatch):
    async def refuse(self, **more):
        raise DockerError(500, "cannot pause: cgroup freezer is not there")

    async def test(backend):
        async with await backend.start(SPEC) as sandbox:
            await told(sandbox, "(while :; do date +%N > new; mv new one; cp one two; done) >/dev/null 2>&1 &")
            monkeypatch.setattr("aiodocker.containers.DockerContainer.pause", refuse)
            siblings = await sandbox.fork(2)
            assert await told(siblings[0], "cat one two") == await told(siblings[1], "cat one two")
            before = await told(sandbox, "cat one; sleep 0.1")
            assert await told(sandbox, "cat one") != before

    run(test, host)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_cut_short_leaves_nothing(host, seed):
    chance = random.Random(seed)

    async def cut(doing, most):
        try:
            return await asyncio.wait_for(doing, chance.uniform(0.0, most))
        except TimeoutError:
            return None

    async def test(backend):
        await cut(backend.start(SPEC), 0.5)
        sandbox = await backend.start(SPEC)
        await cut(sandbox.fork(2), 1.0)
        await cut(sandbox.snapshot(), 0.5)
        assert await told(sandbox, "echo alive") == "alive\n"
        await cut(sandbox.close(), 0.1)
        await sandbox.close()

    run(test, host)


def test_a_lost_sandbox_is_said_to_be_lost(host):
    async def test(backend):
        sandbox = await backend.start(SPEC)
        with backend.engine.asking() as docker:
            await docker.containers.container(sandbox.id).kill()
        for call in (lambda: sandbox.read_file("x"), sandbox.snapshot, lambda: sandbox.fork(2), sandbox.renew):
            with pytest.raises(SandboxError):
                await asyncio.wait_for(call(), 20)
        await sandbox.close()
        await sandbox.close()

    run(test, host)


def test_after_the_death_of_its_holder_a_sandbox_ends_by_itself_and_the_rest_is_reaped(host, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", host)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    with holder:
        id, lease = holder.stdout.readline().split()
        assert id in containers(host)
        holder.send_signal(signal.SIGKILL)

    async def gone():
        for _ in range(300):
            if id not in await asyncio.to_thread(containers, host):
                return
            await asyncio.sleep(0.1)
        pytest.fail("it is still there")

    asyncio.run(gone())
    asyncio.run(reap())
    assert things(host, lease) == []


def test_an_engine_behind_a_port(host):
    """What `DOCKER_HOST=tcp://...` names; a relay stands for the engine's own, which warns and waits."""

    async def test():
        async def relay(reader, writer):
            engine_reader, engine_writer = await asyncio.open_unix_connection(host.removeprefix("unix://"))

            async def pump(source, sink):
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, engine_writer), pump(engine_reader, writer), return_exceptions=True)

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with DockerBackend(f"tcp://127.0.0.1:{port}") as backend, await backend.start(SPEC) as sandbox:
                assert await told(sandbox, "wc -c", stdin=bytes(3 * MIB)) == f"{3 * MIB}\n"
                (sibling,) = await sandbox.fork()
                assert await told(sibling, "echo here") == "here\n"

    asyncio.run(asyncio.wait_for(test(), 240))


def test_without_aiodocker_the_extra_is_named():
    script = "import sys; sys.modules['aiodocker'] = None\n"
    script += "from palaestra.sandboxes.backends import open_backend; open_backend('docker')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "MissingExtraError: aiodocker is not installed; run: pip install 'palaestra[docker]'"
    )


def test_many_at_once(host):
    async def test(backend):
        many = await asyncio.gather(*(backend.start(SPEC) for _ in range(12)))
        said = await asyncio.gather(*(told(each, f"echo {n}") for n, each in enumerate(many)))
        assert said == [f"{n}\n" for n in range(12)]

    run(test, host)
