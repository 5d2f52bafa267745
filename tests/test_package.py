"""Promises of the package as a whole: what imports what, how long importing takes, what is shipped."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import palaestra

PACKAGE = Path(palaestra.__file__).parent
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "tensorboard", "gymnasium", "psutil"}


def modules_below(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def imported(path: Path, *, run_time_only: bool = True) -> set[str]:
    """Names of the modules that a file imports anywhere, those under `if TYPE_CHECKING` left out."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if run_time_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        pending += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("folder", ["envs", "sandboxes", "trajectories", "evaluation"])
def test_the_first_half_never_imports_torch(folder: str) -> None:
    for path in modules_below(folder):
        heavy = {name.partition(".")[0] for name in imported(path)} & {"torch", "transformers"}
        assert not heavy, f"{path.relative_to(PACKAGE)} imports {heavy}"


def test_training_never_imports_a_suite() -> None:
    suites = tuple(f"palaestra.envs.{path.parent.name}" for path in (PACKAGE / "envs").glob("*/__init__.py"))
    for path in modules_below("training"):
        found = {name for name in imported(path, run_time_only=False) if name.startswith(suites)}
        assert not found, f"{path.relative_to(PACKAGE)} imports {found}"


def test_sandboxes_know_nothing_of_who_uses_them() -> None:
    above = tuple(f"palaestra.{name}" for name in ("envs", "agents", "trajectories", "training", "evaluation"))
    for path in [*modules_below("sandboxes"), *modules_below("serving")]:
        found = {name for name in imported(path, run_time_only=False) if name.startswith(above)}
        assert not found, f"{path.relative_to(PACKAGE)} imports {found}"


def test_the_library_never_imports_the_command_line() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.relative_to(PACKAGE).parts or path.name == "__main__.py":
            continue
        assert not {name for name in imported(path) if name.startswith("palaestra.cli")}, path


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_import_is_quick_and_light() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import palaestra; took = time.perf_counter() - began\n"
        f"import json; print(json.dumps([took, sorted({HEAVY!r} & set(sys.modules))]))"
    )
    times = []
    for _ in range(3):
        took, heavy = json.loads(run_python(code))
        times.append(took)
        assert heavy == []
    assert min(times) < 0.3


def test_every_public_name_exists() -> None:
    for name in palaestra.__all__:
        assert getattr(palaestra, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mak'"):
        palaestra.mak  # noqa: B018


def test_public_names_need_no_torch() -> None:
    code = "import sys, palaestra\nfor n in {*palaestra.__all__} - {'train'}: getattr(palaestra, n)\n"
    assert run_python(code + "print('torch' in sys.modules)") == "False"


def test_the_whole_story_is_at_the_top() -> None:
    from palaestra.agents.opening import open_agent
    from palaestra.config import load_recipe
    from palaestra.evaluation.evaluate import evaluate
    from palaestra.training.run import train

    top = (palaestra.train, palaestra.load_recipe, palaestra.evaluate, palaestra.open_agent)
    assert top == (train, load_recipe, evaluate, open_agent)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
