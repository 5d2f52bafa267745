"""What is asked of an engine, before it is asked."""

import pytest

from palaestra.errors import ConfigError
from palaestra.sandboxes.docker.containers import KEPT, check, copier_config, sandbox_config
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

IMAGE = "python:3"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (SandboxSpec(), "needs an image"),
        (SandboxSpec(image=IMAGE, workdir="work"), "absolute"),
        (SandboxSpec(image=IMAGE, workdir="/"), "not the root"),
        (SandboxSpec(image=IMAGE, workdir="/work/../etc"), "without dots"),
        (SandboxSpec(image=IMAGE, workdir="/proc/self"), "/proc"),
        (SandboxSpec(image=IMAGE, workdir="/tmp"), "/tmp"),
        (SandboxSpec(image=IMAGE, workdir=f"{KEPT}/x"), KEPT),
        (SandboxSpec(image=IMAGE, network=("pypi.org",)), "name:port"),
        (SandboxSpec(image=IMAGE, limits=Limits(memory=MIB)), "memory"),
        (SandboxSpec(image=IMAGE, limits=Limits(cpus=0)), "cpus"),
        (SandboxSpec(image=IMAGE, limits=Limits(pids=1)), "pids"),
        (SandboxSpec(image=IMAGE, limits=Limits(disk=0)), "disk"),
    ],
)
def test_a_spec_without_sense_is_told_so(spec, named):
    with pytest.raises(ConfigError, match=named):
        check(spec)


def test_nothing_that_confines_a_sandbox_is_forgotten():
    spec = SandboxSpec(image=IMAGE, limits=Limits(cpus=0.5, memory=64 * MIB, pids=9, disk=2 * MIB))
    config = sandbox_config(spec, "sha256:1", ["python3"], labels={"a": "b"})
    host = config["HostConfig"]
    assert config["User"] == "1000:1000"
    assert config["NetworkDisabled"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert "CapAdd" not in host
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"]
    assert host["AutoRemove"]
    assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)
    assert host["Memory"] == host["MemorySwap"] == 64 * MIB
    assert host["PidsLimit"] == 9
    assert "size=2097152" in host["Tmpfs"]["/tmp"]
    (work,) = host["Mounts"]
    assert work["VolumeOptions"]["Labels"] == {"a": "b"}
    assert "size=2097152" in work["VolumeOptions"]["DriverConfig"]["Options"]["o"]


def test_only_what_an_image_declares_is_mounted_beside_the_work_folder_and_only_to_be_read():
    spec = SandboxSpec(image=IMAGE, root="writable")
    declared = {"/data": "d", "/work": "w", "/tmp": "t"}
    config = sandbox_config(spec, "sha256:1", [], labels={}, kept="k", declared=declared, runtime="runsc")
    work, kept, data = config["HostConfig"]["Mounts"]
    assert work["Target"] == "/work"
    assert (kept["Source"], kept["Target"], kept["ReadOnly"]) == ("k", KEPT, True)
    assert (data["Source"], data["Target"], data["ReadOnly"]) == ("d", "/data", True)
    assert config["HostConfig"]["Runtime"] == "runsc"
    assert not config["HostConfig"]["ReadonlyRootfs"]


def test_a_copier_may_do_nothing_but_copy():
    host = copier_config("sha256:1", [], "to", labels={}, source=("from", "/source"))["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == ["DAC_OVERRIDE", "CHOWN", "FOWNER"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert [(each["Source"], each["ReadOnly"]) for each in host["Mounts"]] == [("to", False), ("from", True)]
