"""The reaper on a real engine: after a kill of their holder, containers, networks, volumes and images go."""

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest
from support.holders import Holder

from palaestra.cli.main import main
from palaestra.sandboxes import reaper
from palaestra.sandboxes.docker_keeper import docker_keeper
from palaestra.sandboxes.leases import Lease

IMAGE = "palaestra-base:test"

EVERYTHING = """
import aiodocker
async def make():
    async with aiodocker.Docker() as docker:
        name = f"palaestra-{lease.id}"
        labels = lease.labels(600.0)
        await docker.volumes.create({"Name": name, "Labels": labels})
        config = {"Image": "palaestra-base:test", "Cmd": ["sleep", "60"], "Labels": labels}
        config["HostConfig"] = {"NetworkMode": "none", "Binds": [f"{name}:/work"]}
        container = await docker.containers.create(config, name=name)
        await container.start()
        await container.commit(repository=name, tag="one", changes=[f"LABEL palaestra.lease={lease.id}"])
        paused = await docker.containers.create(config, name=name + "-paused")
        await paused.start()
        await paused.pause()
        await docker.containers.create(config, name=name + "-never-started")
        await docker.networks.create({"Name": name, "Driver": "bridge", "Internal": True, "Labels": labels})
asyncio.run(make())
"""


async def version():
    async with docker_keeper() as keeper:
        return await keeper._docker.system.info()


@pytest.fixture(scope="module")
def engine():
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("no Docker engine: set DOCKER_HOST")
    return asyncio.run(version())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))


def mine(*ids):
    """What carries the ids, by kind; others use the engine too."""
    things = asyncio.run(reaper.survey()).things
    return sorted((thing.kind, thing.state) for thing in things if thing.lease in ids)


def test_everything_goes_after_a_kill_and_nothing_before(engine):
    with Holder(EVERYTHING) as holder:
        kinds = ["container"] * 3 + ["image", "network", "volume"]
        assert mine(holder.id) == [(kind, "alive") for kind in kinds]
        asyncio.run(reaper.reap())
        assert len(mine(holder.id)) == 6
        holder.kill()
        assert mine(holder.id) == [(kind, "dead") for kind in kinds]
        assert asyncio.run(reaper.reap()).kept == {}
        assert mine(holder.id) == []


def test_what_a_live_process_holds_goes_at_its_own_date(engine):
    with Lease.open() as lease:
        subprocess.run(run_labelled(lease.labels(-2 * reaper.GRACE_SECONDS)), check=True)
        assert mine(lease.id) == [("container", "expired")]
        asyncio.run(reaper.reap())
        assert mine(lease.id) == []


def run_labelled(labels):
    """A container with these labels, by another process."""
    config = {"Image": IMAGE, "Cmd": ["sleep", "60"], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    script = (
        "import asyncio, aiodocker\nasync def main():\n    async with aiodocker.Docker() as docker:\n"
        f"        await (await docker.containers.create({config!r})).start()\nasyncio.run(main())"
    )
    return [sys.executable, "-c", script]


def test_ps_lists_them_with_their_image(engine, capsys):
    with Lease.open("test") as lease:
        subprocess.run(run_labelled(lease.labels()), check=True)
        try:
            assert main(["sandboxes", "ps", "--json"]) == 0
            things = json.loads(capsys.readouterr().out)["things"]
            (thing,) = [each for each in things if each["lease"] == lease.id]
            assert (thing["kind"], thing["image"], thing["state"]) == ("container", IMAGE, "alive")
            assert thing["created"] == pytest.approx(time.time(), abs=60.0)
            assert thing["holder"]["pid"] == os.getpid()
        finally:
            assert main(["sandboxes", "reap", lease.id]) == 0
        assert mine(lease.id) == []


def test_a_back_ends_first_start_reaps_in_the_background(engine, monkeypatch):
    monkeypatch.setattr(reaper, "_begun", {})

    async def start():
        async with docker_keeper() as keeper:
            await reaper.reap_soon(keeper)

    with Holder(EVERYTHING) as holder:
        holder.kill()
        asyncio.run(start())
        assert mine(holder.id) == []


def test_three_reapers_at_once(engine):
    with Holder(EVERYTHING) as holder:
        holder.kill()

        async def thrice():
            return await asyncio.gather(*(reaper.reap() for _ in range(3)))

        assert [done.kept for done in asyncio.run(thrice())] == [{}, {}, {}]
        assert mine(holder.id) == []
