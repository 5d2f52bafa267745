"""What goes wrong with engines and images, on real ones: each error says what to do, and nothing is left."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
from support.docker_engines import (
    containers,
    engine_host,
    make_bare_image,
    make_image,
    own_engine,
    remove_image,
    things,
)
from support.dockerd import BASE

from palaestra.errors import ConfigError, SandboxDaemonError, SandboxError, SandboxImageError
from palaestra.sandboxes.backends import open_backend
from palaestra.sandboxes.commands import Exec
from palaestra.sandboxes.docker.backend import DockerBackend
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

SPEC = SandboxSpec(image=BASE)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def host():
    return engine_host()


@pytest.fixture(scope="module")
def small_engine(tmp_path_factory):
    """An engine whose disk is small, and which may be stopped."""
    folder = tmp_path_factory.mktemp("engine")
    data = folder / "data"
    data.mkdir()
    if os.geteuid() == 0 and shutil.which("dockerd"):
        mount = ["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", data]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted")
    engine = own_engine(folder, data)
    yield engine
    engine.remove()


def refusal(spec=SPEC, **settings):
    """The error of a start."""

    async def start():
        async with open_backend("docker", **settings) as backend:
            with pytest.raises(SandboxError) as caught:
                await backend.start(spec)
        return caught.value

    return asyncio.run(start())


@contextmanager
def user(number):
    """As another user."""
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:9"])
def test_no_engine(host):
    error = refusal(host=host)
    assert isinstance(error, SandboxDaemonError)
    assert str(error) == f"no Docker engine answers at {host}; start one, or name its address in DOCKER_HOST"


def test_an_address_that_is_none():
    error = refusal(host="somewhere")
    assert isinstance(error, SandboxDaemonError)
    assert "no Docker engine answers at somewhere" in str(error)


def test_a_context_that_is_not_described(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    error = refusal()
    assert isinstance(error, SandboxDaemonError)
    assert "does not describe" in str(error)


def test_a_socket_that_this_user_may_not_use(host):
    if os.geteuid() != 0:
        pytest.skip("being another user takes root")

    async def start():
        backend = DockerBackend(host)
        with user(65534), pytest.raises(SandboxDaemonError, match="permission denied.*member of the group"):
            await backend.start(SPEC)
        await backend.close()

    asyncio.run(start())


def test_an_image_that_is_not_there(host):
    error = refusal(SandboxSpec(image="palaestra-absent:none"), host=host)
    assert isinstance(error, SandboxImageError)
    assert "has no image 'palaestra-absent:none'; run: docker pull palaestra-absent:none" in str(error)
    assert "pull=True" in str(error)


def test_an_image_that_cannot_be_pulled(host):
    error = refusal(SandboxSpec(image="127.0.0.1:9/palaestra-absent:none"), host=host, pull=True)
    assert isinstance(error, SandboxDaemonError | SandboxImageError)
    assert "127.0.0.1:9" in str(error)


def test_an_image_name_that_is_none(host):
    error = refusal(SandboxSpec(image="No Image!"), host=host)
    assert isinstance(error, SandboxImageError)
    assert "has no image 'No Image!'" in str(error)


def test_an_image_without_python(host):
    image = make_bare_image(host, "palaestra-bare:test")
    try:
        before = containers(host)
        error = refusal(SandboxSpec(image=image), host=host)
        assert isinstance(error, SandboxImageError)
        assert "'palaestra-bare:test' has no python3 on its PATH; build one FROM it that installs" in str(error)
        assert set(containers(host)) <= set(before)
    finally:
        remove_image(host, image)


def test_an_image_with_a_python_that_is_too_old(host):
    old = b'#!/bin/sh\necho "SyntaxError: future feature annotations is not defined" >&2\nexit 1\n'
    image = make_image(host, "palaestra-old:test", {"usr/local/bin/python3": (old, 0o755)})
    try:
        error = refusal(SandboxSpec(image=image), host=host)
        assert isinstance(error, SandboxImageError)
        assert "older than 3.8" in str(error)
    finally:
        remove_image(host, image)


def test_an_image_whose_python_says_nothing(host):
    image = make_image(host, "palaestra-mute:test", {"usr/local/bin/python3": (b"#!/bin/sh\nexit 3\n", 0o755)})
    try:
        error = refusal(SandboxSpec(image=image), host=host)
        assert "cannot copy a work folder" in str(error) or "ends at its start" in str(error)
    finally:
        remove_image(host, image)


def test_what_an_image_has_must_fit_into_the_work_folder(host):
    image = make_image(host, "palaestra-big:test", {"work/big": (b"x" * 4 * MIB, 0o644)})
    try:
        error = refusal(SandboxSpec(image=image, limits=Limits(disk=2 * MIB)), host=host)
        assert "does not fit" in str(error)
        assert "raise the limits disk or memory" in str(error)
    finally:
        remove_image(host, image)


def test_a_runtime_that_the_engine_does_not_know(host):
    error = refusal(host=host, runtime="palaestra-none")
    assert isinstance(error, SandboxDaemonError)
    assert "lacks that runtime" in str(error)


@pytest.mark.parametrize("name", [f"/{BASE}", "../version", "a b", "a?b=c", "a//b", "a/", "#", "a\nb"])
def test_what_no_image_can_be_called(host, name):
    error = refusal(SandboxSpec(image=name), host=host)
    assert isinstance(error, SandboxImageError)
    assert f"has no image {name!r}, which is no name of one" in str(error)


def test_no_image_named(host):
    async def start():
        async with DockerBackend(host) as backend:
            with pytest.raises(ConfigError, match="needs an image"):
                await backend.start(SandboxSpec())

    asyncio.run(start())


def test_a_full_disk(small_engine):
    ballast = small_engine.data / "ballast"
    subprocess.run(["sh", "-c", f"cat /dev/zero > {ballast}"], check=False, stderr=subprocess.DEVNULL)
    try:
        error = refusal(host=small_engine.host)
        assert isinstance(error, SandboxDaemonError)
        assert "no space left" in str(error).lower()
        assert "docker system prune" in str(error)
    finally:
        ballast.unlink()
    assert containers(small_engine.host) == []


def test_a_disk_that_gets_full_during_a_snapshot(small_engine):
    async def snapshot():
        async with DockerBackend(small_engine.host) as backend:
            sandbox = await backend.start(SPEC)
            await sandbox.exec(Exec(shell="head -c 50000000 /dev/urandom > data"))
            ballast = small_engine.data / "ballast"
            size = os.statvfs(small_engine.data).f_bavail * 4096 - 20 * MIB
            ballast.write_bytes(b"x" * size)
            try:
                with pytest.raises(SandboxDaemonError, match="no space left on its disk.*docker system prune"):
                    await sandbox.snapshot()
                siblings = await sandbox.fork(2)  # which needs no disk
                sums = [(await each.exec(Exec(shell="sha256sum data"))).stdout.text for each in (sandbox, *siblings)]
                assert len(set(sums)) == 1
            finally:
                ballast.unlink()
            assert (await sandbox.exec(Exec(shell="ls"))).stdout.text == "data\n"
            assert len(await sandbox.fork(2)) == 2
            lease = backend._lease.id
        assert things(small_engine.host, lease) == []

    asyncio.run(snapshot())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_that_is_restarted_in_the_middle(small_engine, how):
    async def episode():
        async with DockerBackend(small_engine.host) as backend:
            sandbox = await backend.start(SPEC)
            snapshot = await sandbox.snapshot()
            command = asyncio.create_task(sandbox.exec(Exec(shell="echo begun; sleep 60")))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(small_engine.stop, how=how)
            with pytest.raises(SandboxError, match="lost"):
                await asyncio.wait_for(command, 30.0)
            with pytest.raises(SandboxError, match="lost"):
                await sandbox.exec(Exec(argv=("true",)))
            with pytest.raises(SandboxDaemonError, match="no Docker engine answers|broke"):
                await backend.start(SPEC)
            await asyncio.to_thread(small_engine.start)
            again = await snapshot.start()
            assert (await again.exec(Exec(argv=("true",)))).ok
            await sandbox.close()
            lease = backend._lease.id
        return lease

    lease = asyncio.run(episode())
    assert things(small_engine.host, lease) == []


def test_an_engine_that_is_gone_does_not_keep_a_back_end_from_closing(small_engine):
    async def episode():
        backend = DockerBackend(small_engine.host)
        sandbox = await backend.start(SPEC)
        await asyncio.to_thread(small_engine.stop)
        began = time.monotonic()
        await sandbox.close()
        await backend.close()
        assert time.monotonic() - began < 20.0

    asyncio.run(episode())
    small_engine.start()
    assert containers(small_engine.host) == []
