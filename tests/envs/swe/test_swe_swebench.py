"""SWE-bench's rows, from files of every kind, and the repositories that they are about."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.swe_repository import make_clone

from palaestra.envs.swe.swebench import read_instance
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError, DataError, PalaestraError


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clones")
    return folder, make_clone(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, *rows: dict[str, Any], name: str = "test.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def read(path: str, clones: Path, **params: Any) -> Any:
    return read_instance({"path": path, "repositories": str(clones), "instance": "some__lists-1", **params})


def test_an_instance_is_read_whole(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    folder, row = clones
    instance = read(write(tmp_path, row), folder)
    assert instance.fail_to_pass == ("tests/test_lists.py::test_smallest", "tests/test_lists.py::test_total")
    assert instance.pass_to_pass == ("tests/test_lists.py::test_largest",)
    assert instance.test_command[-1] == "tests/test_lists.py"
    assert instance.test_paths == ("tests/test_lists.py",)
    assert (instance.repository, instance.base_commit, instance.image) == ("/work/repo", "", "")
    laid = Path(instance.files["/work/repo"])
    assert "sorted(numbers)[1]" in (laid / "src" / "lists.py").read_text()
    assert not (laid / ".git").exists()
    assert os.access(laid / "run.sh", os.X_OK)
    assert os.readlink(laid / "link") == "src/lists.py"


def test_lists_may_be_json_or_lists_and_files_of_any_kind(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder, row = clones
    listed = {**row, "FAIL_TO_PASS": json.loads(row["FAIL_TO_PASS"]), "PASS_TO_PASS": None}
    (tmp_path / "rows.json").write_text(json.dumps([listed]))
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / "test-00000-of-00001.parquet")
    expected = read(write(tmp_path, row), folder)
    assert read(str(tmp_path / "test-00000-of-00001.parquet"), folder) == expected
    found = read(str(tmp_path / "rows.json"), folder)
    assert (found.fail_to_pass, found.pass_to_pass) == (expected.fail_to_pass, ())


def test_files_of_a_folder_belong_to_splits(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    folder, row = clones
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", row, {**row, "instance_id": "other"}, name="train-1.jsonl")
    write(tmp_path, {**row, "instance_id": "third"}, name="dev.jsonl")
    names = {
        split: [task.name for task in load_suite(f"swe/swebench:{split}", path=str(tmp_path), repositories=str(folder))]
        for split in ("train", "validation", "test")
    }
    assert names == {"train": ["some__lists-1", "other"], "validation": ["third"], "test": []}


def test_images_have_names_by_a_template(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    _, row = clones
    path = write(tmp_path, {**row, "instance_id": "Some__lists-1"})
    params = {"path": path, "instance": "Some__lists-1", "image": "swebench/sweb.eval.x86_64.{instance_id}:latest"}
    instance = read_instance(params)
    assert instance.image == "swebench/sweb.eval.x86_64.some_1776_lists-1:latest"
    assert (instance.workdir, instance.base_commit, instance.files) == ("/testbed", row["base_commit"], {})
    with pytest.raises(DataError, match="it can have"):
        read_instance({**params, "image": "x:{commit}"})
    with pytest.raises(DataError, match="no name of an image"):
        read_instance({**params, "image": "x y"})


def test_mirrors_are_found_by_any_of_their_names(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    folder, row = clones
    for number, name in enumerate(("some/lists", "some__lists.git", "lists")):
        place = tmp_path / str(number) / name
        subprocess.run(["git", "clone", "-q", "--bare", folder / "some__lists", place], check=True)
        assert read(write(tmp_path, row), tmp_path / str(number)).files
    with pytest.raises(DataError, match="has no clone of some/lists"):
        read(write(tmp_path, row), tmp_path)


def test_a_stranger_s_clone_runs_nothing_and_leaves_nothing_out(tmp_path: Path) -> None:
    row = make_clone(tmp_path)
    clone = tmp_path / "some__lists"
    (clone / ".gitattributes").write_text("* export-ignore text eol=crlf filter=bad\n")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for command in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=clone, env=env, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
    harm = f"touch {tmp_path / 'harm'}; cat"
    for name in ("filter.bad.smudge", "core.fsmonitor", "core.sshCommand", "core.pager", "alias.ls-tree"):
        subprocess.run(["git", "config", name, harm], cwd=clone, check=True)
    instance = read(write(tmp_path, {**row, "base_commit": head.stdout.strip()}), tmp_path)
    assert b"\r" not in (Path(instance.files["/work/repo"]) / "src" / "lists.py").read_bytes()
    assert not (tmp_path / "harm").exists()


def test_a_tree_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    row = make_clone(tmp_path)
    clone = tmp_path / "some__lists"

    def git(*command: str, given: str = "") -> str:
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *command],
            cwd=clone,
            input=given,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    blob = git("hash-object", "-w", "--stdin", given="x")
    for name in ("..", ".git"):
        inner = git("mktree", given=f"100644 blob {blob}\tx\n")
        outer = git("mktree", given=f"040000 tree {inner}\t{name}\n")
        commit = git("commit-tree", outer, "-m", "bad")
        with pytest.raises(DataError, match="no repository should have"):
            read(write(tmp_path, {**row, "base_commit": commit}), tmp_path)


ROWS: dict[str, dict[str, Any]] = {
    "instance_id": {"instance_id": "../x"},
    r"\$\.instance_id": {"instance_id": 7},
    "repo cannot be": {"repo": "some"},
    "repo cannot be '../..'": {"repo": "../.."},
    "base_commit": {"base_commit": "--upload-pack=x"},
    "missing required field `problem_statement`": {"problem_statement": ...},
    "test_patch is empty": {"test_patch": " "},
    "FAIL_TO_PASS is neither": {"FAIL_TO_PASS": "[1"},
    "PASS_TO_PASS is neither": {"PASS_TO_PASS": "[1]"},
    r"\$\.FAIL_TO_PASS": {"FAIL_TO_PASS": {"a": 1}},
}


@pytest.mark.parametrize("fault", ROWS)
def test_rows_that_make_no_sense_are_named(tmp_path: Path, clones: tuple[Path, dict[str, Any]], fault: str) -> None:
    folder, row = clones
    spoiled = {key: value for key, value in {**row, **ROWS[fault]}.items() if value is not ...}
    path = write(tmp_path, {**row, "instance_id": "good"}, spoiled)
    with pytest.raises(DataError, match=fault) as caught:
        load_suite("swe/swebench:test", path=path, repositories=str(folder))
    assert path in str(caught.value)


INSTANCES: dict[str, dict[str, Any]] = {
    "names no test": {"FAIL_TO_PASS": "[]"},
    "no node id of pytest": {"FAIL_TO_PASS": ["test_x (module.Class)"]},
    "not in the repository": {"test_patch": "--- a/../../x\n+++ b/../../x\n@@ -1 +1 @@\n-a\n+b\n"},
    "no such commit|bad revision|ambiguous|unknown": {"base_commit": "0" * 40},
}


@pytest.mark.parametrize("fault", INSTANCES)
def test_instances_that_cannot_be_played_are_refused(
    tmp_path: Path, clones: tuple[Path, dict[str, Any]], fault: str
) -> None:
    folder, row = clones
    with pytest.raises(DataError, match=fault):
        read(write(tmp_path, {**row, **INSTANCES[fault]}), folder)


def test_parameters_that_make_no_sense(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    folder, row = clones
    path, clone = write(tmp_path, row), str(folder)
    for params, error, message in (
        ({}, ConfigError, "needs path="),
        ({"path": path}, ConfigError, "repositories=FOLDER"),
        ({"path": path, "repositories": clone, "typo": 1}, ConfigError, "takes no parameter typo"),
        ({"path": str(tmp_path / "gone"), "repositories": clone}, DataError, "does not exist"),
        ({"path": 7, "repositories": clone}, DataError, "is a file or a folder"),
        ({"path": str(folder), "repositories": clone}, DataError, "begins with a split"),
    ):
        with pytest.raises(error, match=message):
            load_suite("swe/swebench:test", **params)
    for extra, message in (
        ({"command": "pytest"}, "list of texts"),
        ({"variables": {"A": 1}}, "mapping"),
        ({"repositories": "/nowhere"}, "does not exist"),
    ):
        with pytest.raises(PalaestraError, match=message):
            read(path, folder, **extra)
    with pytest.raises(DataError, match="no instance 'other'"):
        read(path, folder, instance="other")


def test_files_that_are_something_else(tmp_path: Path, clones: tuple[Path, dict[str, Any]]) -> None:
    folder, row = clones
    for name, content in (
        ("a.jsonl", b"\x80\x04\x95"),
        ("b.jsonl", b"{}\n"),
        ("c.parquet", b"PAR1 no"),
        ("d.json", b"[" * 100_000),
        ("e.jsonl", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_suite("swe/swebench:test", path=str(tmp_path / name), repositories=str(folder))
    with pytest.raises(DataError, match="another row"):
        load_suite("swe/swebench:test", path=write(tmp_path, row, row), repositories=str(folder))
