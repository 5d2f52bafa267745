import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.wheels import offline_index, write_wheel

from palaestra.envs.isolation import venvs
from palaestra.envs.isolation.venvs import Recipe, Venv, built, cache_folder, cached
from palaestra.errors import EnvError


def recipe(*requirements: str) -> Recipe:
    return Recipe(requirements, sys.executable, sys.version)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and an index that is a folder."""
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    for name, value in offline_index(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "wheels"


def imports(venv: Venv, *modules: str) -> bool:
    code = f"import {', '.join(modules)}"
    return subprocess.run([venv.python, "-c", code], capture_output=True, check=False).returncode == 0


def tree() -> set[str]:
    return {path.name for path in cache_folder().iterdir()} if cache_folder().exists() else set()


BUILD = """
import asyncio, sys
from palaestra.envs.isolation.venvs import Recipe, built
venv = asyncio.run(built(Recipe(("quizlib",), sys.executable, sys.version), lambda line: print(line, flush=True)))
print(venv.python)
"""


def builder() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True)


def test_many_ask_and_one_builds(index: Path) -> None:
    write_wheel(index, "quizlib")
    processes = [builder() for _ in range(3)]
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    assert sum("Successfully installed" in "\n".join(lines) for lines in said) == 1
    assert len({lines[-1] for lines in said}) == 1
    (venv,) = cached()
    assert said[0][-1] == str(venv.python)
    assert venv.ready
    assert venv.recipe() == recipe("quizlib")
    assert imports(venv, "quizlib", "msgspec")
    assert not imports(venv, "rich")
    asyncio.run(venv.remove())
    assert tree() == set()


def test_a_failed_build_leaves_its_log_only(index: Path) -> None:
    write_wheel(index, "needy", needs="no_such_thing==3")
    with pytest.raises(
        EnvError, match=r"No matching distribution found for no.such.thing==3; the full log is"
    ) as caught:
        asyncio.run(built(recipe("needy")))
    assert "\n" not in str(caught.value)
    (venv,) = cached()
    assert not venv.ready
    assert not venv.home.exists()
    assert re.search(r"the full log is (.*)", str(caught.value))[1] == str(venv.log)  # type: ignore[index]
    assert "needy" in venv.log.read_text()


def test_a_build_that_was_killed_is_built_anew(index: Path) -> None:
    write_wheel(index, "quizlib")
    process = builder()
    home = cache_folder() / recipe("quizlib").key
    deadline = time.monotonic() + 60
    while not (home / "bin").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert home.exists()
    assert not Venv(home).ready
    venv = asyncio.run(built(recipe("quizlib")))
    assert venv.home == home
    assert imports(venv, "quizlib")


def test_cancelling_ends_the_build(index: Path) -> None:
    async def go() -> None:
        task = asyncio.create_task(built(recipe()))
        while not (cache_folder() / recipe().key).exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    (venv,) = cached()
    assert not venv.home.exists()
    processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not any(str(venv.home).encode() in command for command in processes)


def test_one_whose_base_is_gone_is_not_ready(tmp_path: Path) -> None:
    venv = Venv(tmp_path / "abc")
    venv.python.parent.mkdir(parents=True)
    venv.mark.write_text("{}")
    venv.python.symlink_to(tmp_path / "python3.11")
    assert not venv.ready
    (tmp_path / "python3.11").touch()
    assert venv.ready
    assert venv.recipe() is None


def test_the_key_is_of_the_ingredients() -> None:
    assert recipe("a", "b").key == recipe("b", "a").key
    assert len({recipe("a").key, recipe("b").key, recipe().key, Recipe((), sys.executable, "3.99").key}) == 4


@pytest.mark.parametrize("requirement", ["--index-url=x", " -r file", ""])
def test_options_are_no_requirements(requirement: str) -> None:
    with pytest.raises(EnvError, match="is no requirement"):
        asyncio.run(built(recipe(requirement)))


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvError, match=r"cannot write to .*PALAESTRA_CACHE"):
        asyncio.run(built(recipe()))
    assert cached() == []


def test_debian_without_ensurepip(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("The virtual environment was not created\nbecause ensurepip is not\navailable.\n")
    assert "apt install python3-venv" in venvs._last_word(tmp_path / "log")


def test_a_base_that_cannot_make_one() -> None:
    with pytest.raises(EnvError, match=r"^\$ /bin/false .*; the full log is"):
        asyncio.run(built(Recipe((), "/bin/false", "0")))


def test_a_package_that_pins_another_version_of_what_workers_need_is_overruled(index: Path) -> None:
    write_wheel(index, "quizlib", needs="msgspec==0.0.1")
    write_wheel(index, "msgspec", "0.0.1")
    venv = asyncio.run(built(recipe("quizlib")))
    assert imports(venv, "quizlib", "msgspec")
    installed = {path.name for path in venv.home.glob("lib/*/site-packages/msgspec-*.dist-info")}
    assert installed == {f"{venvs.WORKER_NEEDS[0].replace('==', '-')}.dist-info"}
