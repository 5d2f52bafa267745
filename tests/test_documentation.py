"""What the documentation tells people to type works."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from palaestra.cli.main import COMMANDS, load_command, main, split_command
from palaestra.envs import registry, tasks
from palaestra.training.algorithms import ALGORITHMS
from palaestra.training.plugins import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> list[str]:
    """The lines of a page's code blocks, and a command's examples, that call `palaestra`, by torchrun as well."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"^torchrun .*-m palaestra ", "palaestra ", line) for line in lines]
    return [line for line in lines if re.match(r"palaestra [a-z]+( |$)", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_can_be_parsed(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        name, arguments = split_command(shlex.split(line, comments=True)[1:])
        load_command(name)[1].parse(arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_a_command_can_be_parsed(name: str) -> None:
    command, parser = load_command(name)
    examples = commands(command.EXAMPLES)
    assert len(examples) == len(command.EXAMPLES.splitlines())
    for line in examples:
        parser.parse(split_command(shlex.split(line)[1:])[1])


@pytest.fixture(autouse=True)
def registries_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is forgotten after the test."""
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    monkeypatch.setattr(tasks, "_LOADERS", dict(tasks._LOADERS))
    monkeypatch.setattr(sys, "path", list(sys.path))


def blocks(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_environment_keeps_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "readme_quiz.py").write_text(blocks("README.md")[0])
    assert main(["check", "quiz/Capitals-v0", "--json", "--import", str(tmp_path / "readme_quiz.py")]) == 0
    assert json.loads(capsys.readouterr().out)["determinism"] == "exact"


def test_the_how_to_suite_can_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "howto_quiz.py").write_text("\n".join(blocks("docs/how-to/register-an-environment.md")[:2]))
    command = ["eval", "quiz:train", "--agent", "random", "--episodes", "20", "--json"]
    assert main([*command, "--import", str(tmp_path / "howto_quiz.py")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 < result["success"]["value"] < 1
    assert result["statuses"] == {"ok": 20}


def test_the_how_to_code_tools_keep_the_contract_and_print_what_the_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    page = "docs/how-to/code-tools.md"
    environment, episode = blocks(page)
    (tmp_path / "howto_table.py").write_text(environment)
    assert main(["check", "table/Sum-v0", "--json", "--import", str(tmp_path / "howto_table.py")]) == 0
    assert json.loads(capsys.readouterr().out)["determinism"] == "exact"
    exec(compile(episode, page, "exec"), {})
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_example_of_sandboxes_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    page = "docs/sandboxes/index.md"
    (example,) = blocks(page)
    exec(compile(example, page, "exec"), {})
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", ["empg", "knapsack", "spo"])
def test_the_example_of_a_method_prints_what_its_page_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = f"docs/algorithms/{name}.md"
    (example,) = blocks(page)
    exec(compile(example, page, "exec"), {})
    assert capsys.readouterr().out in re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_pictures_of_effects_can_be_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "pictures" / "effects.py"))["main"]
    monkeypatch.setitem(draw.__globals__, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["effects.py", "aepo"])
    draw()
    drawn = (tmp_path / "aepo.svg").read_text()
    assert drawn.count("<rect") == 3 * 12 * 15
    assert drawn.count('fill="#f0f0f0"') < 300, "nearly nothing has an effect"
    kept = ROOT / "docs" / "assets" / "effects"
    assert {path.stem for path in kept.iterdir()} <= {*ALGORITHMS, *PLUGINS}


@pytest.mark.parametrize("name", sorted({*ALGORITHMS, *PLUGINS} - {"grpo"}))
def test_every_method_has_its_picture_on_a_page(name: str) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "algorithms").glob("*.md"))
    assert f"](../assets/effects/{name}.svg)" in pages
    assert (ROOT / "docs" / "assets" / "effects" / f"{name}.svg").exists()


def test_the_catalogue_page_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "pictures" / "catalogue.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run: python docs/pictures/catalogue.py"
