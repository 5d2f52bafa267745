"""Task folders in Harbor's format, good ones and those that strangers spoiled."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from palaestra.envs.swe.harbor import read_instance
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError, DataError, PalaestraError, UnknownNameError
from palaestra.sandboxes.spec import MIB

TOML = """
version = "1.0"
[metadata]
difficulty = "easy"
author_name = "somebody"
[verifier]
timeout_sec = 90.0
env = { LEVEL = "${LEVEL:-3}" }
[agent]
timeout_sec = 120
[environment]
cpus = 2
memory_mb = 512
storage = "1G"
allowed_hosts = ["pypi.org"]
env = { MODE = "x" }
"""
DOCKERFILE = "FROM debian AS one\nWORKDIR /elsewhere\nFROM palaestra-base:test\nWORKDIR /srv\nWORKDIR code\n"


def make_task(folder: Path, toml: str = TOML) -> Path:
    for name, content in {
        "task.toml": toml,
        "instruction.md": "Write 7 into answer.txt.\n",
        "environment/Dockerfile": DOCKERFILE,
        "tests/test.sh": "grep -q 7 answer.txt && echo 1 > /logs/verifier/reward.txt\n",
        "solution/solve.sh": "echo 7 > answer.txt\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_a_task_is_read_whole(tmp_path: Path) -> None:
    folder = make_task(tmp_path / "seven")
    instance = read_instance({"path": str(folder)})
    assert instance.problem == "Write 7 into answer.txt.\n"
    assert instance.image.startswith("palaestra-harbor:")
    assert instance.build == str(folder / "environment")
    assert instance.workdir == instance.repository == "/srv/code"
    assert instance.root == "writable"
    assert instance.env == {"MODE": "x"}
    assert instance.network == ("pypi.org:80", "pypi.org:443")
    assert (instance.limits.cpus, instance.limits.memory, instance.limits.disk) == (2.0, 512 * MIB, 1024 * MIB)
    assert instance.test_files == {"/tests": str(folder / "tests")}
    assert instance.test_command == ("env", "LEVEL=3", "bash", "/tests/test.sh")
    assert instance.verdict == "reward-file"
    assert instance.solution == str(folder / "solution")
    assert (instance.agent_seconds, instance.test_seconds) == (120.0, 90.0)
    (folder / "environment" / "Dockerfile").write_text(DOCKERFILE + "RUN true\n")
    assert read_instance({"path": str(folder)}).image != instance.image


def test_little_is_enough(tmp_path: Path) -> None:
    folder = make_task(tmp_path / "t", '[environment]\ndocker_image = "some/image:1"\n')
    (folder / "solution" / "solve.sh").unlink()
    instance = read_instance({"path": str(folder)})
    assert (instance.image, instance.build, instance.solution) == ("some/image:1", "", "")
    assert instance.network == ()
    assert read_instance({"path": str(folder), "image": "mine"}).image == "mine"


def test_tasks_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        make_task(tmp_path / "all" / name)
    (tmp_path / "all" / "notes").mkdir()
    suite = load_suite("swe/harbor:test", path=str(tmp_path / "all"), max_turns=9)
    assert [task.name for task in suite] == ["a", "b", "c"]
    assert suite[0].kind == "easy"
    assert suite[0].params == {"format": "harbor", "path": str(tmp_path / "all" / "a"), "max_turns": 9}
    assert len(load_suite("swe/harbor:train", path=str(tmp_path / "all"))) == 0
    assert len(load_suite("swe/harbor:train", path=str(tmp_path / "all"), split_of_all="train")) == 3
    assert [task.name for task in load_suite("swe/harbor:test", path=str(tmp_path / "all" / "b"))] == ["b"]


def test_folders_of_splits_divide(tmp_path: Path) -> None:
    make_task(tmp_path / "train" / "a")
    make_task(tmp_path / "test" / "b")
    assert [task.name for task in load_suite("swe/harbor:train", path=str(tmp_path))] == ["a"]
    assert [task.name for task in load_suite("swe/harbor:test", path=str(tmp_path))] == ["b"]
    assert len(load_suite("swe/harbor:validation", path=str(tmp_path))) == 0


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, ConfigError, "needs path="),
        ({"path": "."}, DataError, "has no task"),
        ({"path": "nowhere"}, DataError, "does not exist"),
        ({"path": "file"}, DataError, "is no folder"),
        ({"path": 7}, DataError, "is a folder, not"),
        ({"path": "a\0b"}, DataError, "a folder of Harbor tasks"),
        ({"path": ".", "limit": 3}, ConfigError, "takes no parameter limit"),
        ({"path": ".", "split_of_all": "dev"}, UnknownNameError, "split of swe/harbor"),
        ({"path": ".", "max_turns": 0}, DataError, "max_turns"),
    ],
)
def test_parameters_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, object], error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        load_suite("swe/harbor:test", **params)


TOML_FAULTS = {
    "environment = 3": r"\$\.environment",
    '[environment]\ncpus = "two"': r"\$\.environment\.cpus",
    "[environment]\ncpus = -1": r"\$\.environment\.cpus",
    "[environment]\nmemory_mb = 1e30": r"\$\.environment\.memory_mb",
    '[environment]\nmemory = "lots"': "environment.memory is a size",
    '[environment]\nstorage = "0G"': "environment.storage is a size",
    "[verifier]\ntimeout_sec = nan": r"timeout_sec",
    "[verifier]\ntimeout_sec = inf": r"timeout_sec",
    '[verifier]\nenv = { KEY = "${SECRET}" }': "verifier.env wants the variable SECRET",
    '[environment]\nenv = { "A=B" = "x" }': "no name of a variable",
    '[environment]\nallowed_hosts = ["http://x/"]': "allowed_hosts",
    '[environment]\nnetwork_mode = "all"': r"\$\.environment\.network_mode",
    "[environment]\ngpus = 1": "GPU",
    "[[steps]]\nname = 'a'": "several steps",
    "= 3": "is no TOML",
    "[" * 5000: "is no TOML|nested",
    "x = " + "[" * 5000: "is no TOML|nested",
}


@pytest.mark.parametrize("toml", TOML_FAULTS, ids=lambda toml: toml[:40])
def test_faults_in_task_toml_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toml: str) -> None:
    monkeypatch.setenv("SECRET", "key")  # which no stranger's file reads
    folder = make_task(tmp_path / "t", toml)
    with pytest.raises(DataError, match=TOML_FAULTS[toml]) as caught:
        read_instance({"path": str(folder)})
    assert str(folder) in str(caught.value) or "allowed_hosts" in str(caught.value)


def _spoil(folder: Path, name: str) -> None:
    (folder / name).unlink()


FAULTS: dict[str, Callable[[Path], object]] = {
    "task.toml": lambda folder: _spoil(folder, "task.toml"),
    "instruction.md": lambda folder: _spoil(folder, "instruction.md"),
    "test.sh": lambda folder: _spoil(folder, "tests/test.sh"),
    "Dockerfile": lambda folder: _spoil(folder, "environment/Dockerfile"),
    "is empty": lambda folder: (folder / "tests/test.sh").write_text(" \n"),
    "not UTF-8": lambda folder: (folder / "instruction.md").write_bytes(b"\xff\xfe"),
    "more than": lambda folder: os.truncate(folder / "instruction.md", 1 << 40),
    "more than 20000 files": lambda folder: os.truncate(folder / "tests/test.sh", 1 << 20) or _sparse(folder),
    "leads out of": lambda folder: (folder / "tests/passwd").symlink_to("/etc/passwd"),
    "link that leads": lambda folder: (folder / "tests/up").symlink_to("../../.."),
    "neither a file nor a folder": lambda folder: os.mkfifo(folder / "tests/fifo"),
    "no plain file": lambda folder: _linked(folder, "instruction.md"),
    "is no folder": lambda folder: _linked(folder, "tests"),
    "several containers": lambda folder: (folder / "environment/docker-compose.yaml").touch(),
}


def _sparse(folder: Path) -> None:
    (folder / "tests/huge").touch()
    os.truncate(folder / "tests/huge", 1 << 40)


def _linked(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "away")
    (folder / name).symlink_to(folder.parent / "away")


@pytest.mark.parametrize("fault", FAULTS)
def test_folders_that_were_spoiled_are_refused(tmp_path: Path, fault: str) -> None:
    folder = make_task(tmp_path / "t")
    FAULTS[fault](folder)
    with pytest.raises(PalaestraError, match=fault):
        read_instance({"path": str(folder)})


def test_links_inside_are_fine(tmp_path: Path) -> None:
    folder = make_task(tmp_path / "t")
    (folder / "tests" / "same.sh").symlink_to("test.sh")
    assert read_instance({"path": str(folder)}).name == "t"


def test_variables_come_from_the_user_alone(tmp_path: Path) -> None:
    folder = make_task(tmp_path / "t", TOML.replace("${LEVEL:-3}", "${LEVEL}"))
    command = read_instance({"path": str(folder), "variables": {"LEVEL": "9"}}).test_command
    assert command[:2] == ("env", "LEVEL=9")
    with pytest.raises(DataError, match="mapping of texts"):
        read_instance({"path": str(folder), "variables": {"LEVEL": 9}})
