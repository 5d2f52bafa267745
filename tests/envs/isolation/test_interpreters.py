import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.interpreters import own_interpreter
from support.isolated_envs import Ledger
from support.isolated_envs import spec as spec_of
from support.wheels import offline_index, write_wheel

from palaestra.envs.isolation import interpreters
from palaestra.envs.isolation.interpreters import own_folders, package_folder
from palaestra.envs.isolation.placement import Placement, foreign
from palaestra.envs.registry import EnvSpec, make
from palaestra.envs.wrappers import WrapperSpec
from palaestra.errors import EnvError

CONFINED = """
import sys
from importlib.util import find_spec
from neighbour import NAME
from palaestra import Env, Reset, Step

class Confined(Env):
    async def reset(self, *, seed=None, task=None, options=None):
        seen = [name for name in ("numpy", "yaml", "rich", "pytest", "quizlib") if find_spec(name)]
        return Reset(" ".join([NAME, sys.executable, str(seen)]), {"path": sys.path})

    async def step(self, action):
        return Step(action, 0.0, True, False, {})
"""
PROGRAM = """
import asyncio
from palaestra import make, register
from palaestra.envs.isolation.placement import Placement
{env}

register("test/Main-v0", Confined)

async def go():
    async with make("test/Main-v0", placement=Placement(kind="interpreter", python=sys.argv[1])) as env:
        print((await env.reset())[0])

if __name__ == "__main__":
    asyncio.run(go())
"""
BUILDING = """
import asyncio, contextlib
from palaestra import EnvSpec, make
from palaestra.envs.isolation.placement import Placement
from palaestra.errors import EnvError
from rich.console import Console
from rich.progress import Progress

placement = Placement(kind="interpreter", requirements=("quizlib",), python={base!r})
with Progress(console=Console(stderr=True)) if {bar} else contextlib.nullcontext():
    try:
        asyncio.run(make(EnvSpec(id="t/X-v0", entry_point="x:X", placement=placement)).start())
    except EnvError as error:
        said = str(error)
print(said)
"""
CONFINED_SPEC = EnvSpec(id="test/Confined-v0", entry_point="confined_quiz:Confined")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(interpreters, "_PROBES", {})


@pytest.fixture
def plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of an environment that is a file beside another; only this process's path leads to it."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "confined_quiz.py").write_text(CONFINED)
    (tmp_path / "plain" / "neighbour.py").write_text("NAME = 'well'")
    monkeypatch.syspath_prepend(str(tmp_path / "plain"))
    return str(tmp_path / "plain")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An interpreter without any package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    return tmp_path / "bare" / "bin" / "python"


@pytest.fixture
def lean(bare: Path) -> Path:
    """An interpreter with no package but msgspec."""
    (site,) = (bare.parents[1] / "lib").glob("python*/site-packages")
    (site / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    return bare


def placed(spec: EnvSpec, **placement: Any) -> EnvSpec:
    return msgspec.structs.replace(spec, placement=Placement(kind="interpreter", **placement))


def first(spec: EnvSpec) -> Any:
    async def go() -> Any:
        async with make(spec) as env:
            return await env.reset(seed=1)

    return asyncio.run(go())


def failure(**placement: Any) -> str:
    with pytest.raises(EnvError) as caught:
        first(spec_of(Ledger, placement=Placement(kind="interpreter", **placement)))
    assert "\n" not in str(caught.value)
    assert "test/Ledger-v0" in str(caught.value)
    return str(caught.value)


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


class TestAnExistingInterpreter:
    def test_it_is_used_as_it_is(self, lean: Path, plain_file: str) -> None:
        observation, info = first(placed(CONFINED_SPEC, python=str(lean)))
        assert observation == f"well {lean} []"
        assert plain_file in info["path"]
        ours = {path for path in sys.path if "site-packages" in path}
        assert not ours & set(info["path"])

    def test_an_episode_is_as_here(self, lean: Path) -> None:
        there = first(spec_of(Ledger, placement=Placement(kind="interpreter", python=str(lean))))
        assert there == first(spec_of(Ledger))

    def test_its_environ_is_the_placements(self, lean: Path, plain_file: str, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "quizlib.py").touch()
        environ = {"PYTHONPATH": str(tmp_path / "more")}
        observation, _ = first(placed(CONFINED_SPEC, python=str(lean), environ=environ))
        assert observation == f"well {lean} ['quizlib']"

    def test_environments_of_the_program_itself(self, lean: Path, tmp_path: Path) -> None:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM.format(env=CONFINED.replace("from neighbour import NAME", "NAME = 'main'")))
        done = subprocess.run([sys.executable, program, lean], capture_output=True, text=True, check=False)
        assert done.stdout == f"main {lean} []\n", done.stderr

    def test_one_that_is_not_there(self) -> None:
        assert "there is no Python at '/nowhere/python'" in failure(python="/nowhere/python")

    def test_one_that_lacks_msgspec(self, bare: Path) -> None:
        said = failure(python=str(bare))
        assert "No module named 'msgspec'" in said
        assert f"{bare} -m pip install msgspec==" in said

    def test_one_that_is_no_python(self, tmp_path: Path) -> None:
        said = failure(python=script(tmp_path / "not-python", "echo hello; echo sorry >&2"))
        assert said.endswith("does not work as a Python: sorry")

    def test_one_that_is_too_old(self, tmp_path: Path) -> None:
        said = failure(python=script(tmp_path / "old", """echo '{"version": "3.9", "minor": [3, 9], "missing": ""}'"""))
        assert "is Python 3.9; workers need 3.11 or newer" in said

    def test_one_that_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interpreters, "PROBE_SECONDS", 0.3)
        assert "did not answer in 0.3 s" in failure(python=script(tmp_path / "hangs", "exec sleep 20"))


class TestRequirements:
    def test_they_are_installed(self, tmp_path: Path, plain_file: str) -> None:
        wheel = write_wheel(tmp_path, "quizlib")
        with own_interpreter():
            observation, info = first(placed(CONFINED_SPEC, requirements=(str(wheel),)))
        assert observation.endswith("['quizlib']")
        assert not any(path in info["path"] for path in sys.path if "site-packages" in path)

    def test_a_failed_build_is_told_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for name, value in offline_index(tmp_path / "wheels").items():
            monkeypatch.setenv(name, value)
        said = failure(requirements=("no_such_thing",))
        assert said.startswith("cannot build the interpreter of test/Ledger-v0: No matching distribution found")
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("bar", [False, True])
    def test_a_terminal_shows_what_is_done(self, tmp_path: Path, bar: bool) -> None:
        """In a line of its own, or above the progress bar that is there."""
        probe = """'{"version": "3.11", "minor": [3, 11], "missing": ""}'"""
        base = script(tmp_path / "base", f"[ $1 = -c ] && exec echo {probe}; echo unpacking; sleep 0.5; exit 1")
        (tmp_path / "program.py").write_text(BUILDING.format(base=base, bar=bar))
        ours, theirs = os.openpty()
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        command = [sys.executable, tmp_path / "program.py"]
        done = subprocess.run(command, env=env, stderr=theirs, stdout=subprocess.PIPE, check=True)
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert done.stdout.startswith(b"cannot build the interpreter of t/X-v0: unpacking; the full log is ")
        assert "an interpreter for t/X-v0, once: pip install quizlib" in shown
        assert ("unpacking" in shown) is not bar


class TestWhatItGetsOfOurs:
    def test_a_folder_with_one_link(self) -> None:
        folder = Path(package_folder())
        assert os.listdir(folder) == ["palaestra"]
        assert (folder / "palaestra" / "errors.py").is_file()
        (folder / "palaestra").unlink()
        (folder / "palaestra").symlink_to("/nowhere")
        assert (Path(package_folder()) / "palaestra" / "errors.py").is_file()

    def test_folders_of_plain_files_only(self, plain_file: str) -> None:
        spec = EnvSpec(
            id="t/X-v0", entry_point="pytest:main", wrappers=(WrapperSpec(entry_point="confined_quiz:Confined"),)
        )
        assert own_folders(spec) == [plain_file]
        for entry_point in (
            "palaestra.envs.core:Env",
            "json:loads",
            "no_such_module:X",
            "__main__:X",
            "numpy.random:x",
        ):
            assert own_folders(EnvSpec(id="t/X-v0", entry_point=entry_point)) == []

    def test_workers_need_nothing_but_msgspec(self) -> None:
        """Also the interpreters of others have it, and the standard library."""
        code = (
            "import sys; before = set(sys.modules);"
            "import palaestra.envs.isolation.forkserver, palaestra.envs.isolation.worker, palaestra.envs.wrappers;"
            "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
            "print(sorted(names - sys.stdlib_module_names - {'palaestra', 'msgspec', 'typing_extensions'}))"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_foreign_packages_run_here_where_they_can() -> None:
    assert foreign("msgspec", "msgspec==1") == Placement(kind="process", requirements=("msgspec==1",))
    assert foreign("no_such_package", "x").kind == "interpreter"
