"""The wheel: it holds everything that the package needs where there is no checkout, and works there."""

import os
import subprocess
import sys
from configparser import ConfigParser
from email import message_from_bytes
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

import palaestra

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install hatchling")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("these tests run without their checkout")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_what_the_package_needs(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = {path for path in (ROOT / "palaestra").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert {f"palaestra/recipes/{recipe.name}" for recipe in (ROOT / "recipes").glob("*.yaml")} <= names
    report, model = "palaestra/trajectories/report/", "palaestra/models/tiny/"
    weights = {f"{model}{name}" for name in ("model.safetensors", "config.json", "tokenizer.json", "SHA256SUMS")}
    assert {"palaestra/py.typed", f"{report}style.css", f"{report}script.js", *weights} <= names
    strange = {
        name for name in names if name.split("/")[0] not in ("palaestra", wheel.name.split("-py3")[0] + ".dist-info")
    }
    assert not strange
    assert wheel.stat().st_size < 9_000_000


def test_its_metadata_say_how_to_install_it(wheel: Path) -> None:
    folder = wheel.name.split("-py3")[0] + ".dist-info"
    with ZipFile(wheel) as archive:
        about = message_from_bytes(archive.read(f"{folder}/METADATA"))
        scripts = ConfigParser()
        scripts.read_string(archive.read(f"{folder}/entry_points.txt").decode())
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert (about["Name"], about["Version"]) == ("palaestra", palaestra.__version__)
    assert about["License-Expression"] == "Apache-2.0"
    assert {"train", "gguf", "gymnasium", "alfworld"} <= set(about.get_all("Provides-Extra") or ())
    module, _, function = scripts["console_scripts"]["palaestra"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_it_works_far_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """From the unpacked wheel alone: recipes, the suite, the shipped model and the report are found."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    run = tmp_path / "run"
    small = ["budget.iterations=1", "rollout.groups=1", "rollout.group_size=2", "tasks.max_turns=2", "model.threads=1"]
    small += ["evaluation.every=0", "evaluation.test_episodes=0"]
    script = "import sys, palaestra; from palaestra.cli.main import main; print(palaestra.__file__); "
    for command in (["envs"], ["train", "demo", f"out={run}", *small]):
        done = subprocess.run(
            [sys.executable, "-c", f"{script}sys.exit(main({command!r}))"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path / "site"))
    assert (run / "report.html").is_file()
    assert (run / "model" / "model.safetensors").is_file()
