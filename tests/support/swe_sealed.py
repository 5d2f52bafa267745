"""A small task to be graded: a package with two faults, hidden tests of many kinds, and sandboxes to work in."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from compileall import compile_dir
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import files
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from msgspec.structs import replace
from support.sandboxes import Place as Where

from palaestra.envs.swe.grade import Grade
from palaestra.envs.swe.grading import grade
from palaestra.envs.swe.hunks import patch
from palaestra.envs.swe.instance import Instance
from palaestra.envs.swe.workspace import prepare
from palaestra.sandboxes.core import Backend, Sandbox
from palaestra.sandboxes.spec import MIB, Limits, SandboxSpec

CODE = '''"""A stack."""


class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)
        return self

    def pop(self):
        return self.items.pop(0)

    def __len__(self):
        return len(self.items) + 1


def name(number):
    return "stack number %d" % number
'''
MENDED = CODE.replace("pop(0)", "pop()").replace("len(self.items) + 1", "len(self.items)")
TESTS = """import os
import unittest

import pytest

from stack import Stack, name


@pytest.fixture
def full():
    return Stack().push(1).push(2)


def test_pop(full):
    assert full.pop() == 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_length(count):
    stack = Stack()
    for number in range(count):
        stack.push(number)
    assert len(stack) == count


def test_name():
    assert name(3) == "stack number 3"


def test_empty():
    with pytest.raises(IndexError):
        Stack().pop()


def test_here():
    assert "repo" in os.getcwd(); print("here")


class TestOld(unittest.TestCase):
    def test_push(self):
        self.assertEqual(Stack().push("a").items, ["a"])

    def test_names(self):
        for number in range(3):
            self.assertIn(str(number), name(number))
"""
FAIL_TO_PASS = tuple(f"tests/test_stack.py::{test}" for test in ("test_length[0]", "test_length[1]", "test_pop"))
PASS_TO_PASS = tuple(
    f"tests/test_stack.py::{test}"
    for test in ("TestOld::test_names", "TestOld::test_push", "test_empty", "test_here", "test_name")
)
_LEXERS = ("__init__", "_mapping", "diff", "python")
"""Of pygments's hundreds, those that pytest imports."""


@cache
def make_instance(folder: Path) -> Instance:
    """The task, with its files below `folder`, which are written once."""
    lay(folder / "base", {"src/stack.py": CODE, "tests/test_stack.py": "def test_old(): pass\n", "README": "A stack."})
    lay(folder / "tests", {"tests/test_stack.py": TESTS})
    for package in ("pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        _copy(package, folder / "site")
    # Each of some hundred sandboxes would compile it again; by its content, since files get new times on their way.
    compile_dir(folder / "site", quiet=2, optimize=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    return Instance(
        name="stack",
        format="releases",
        problem="pop and len are wrong.",
        env={"PYTHONPATH": "/work/repo/src:/work/site", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        files={"/work/repo": str(folder / "base"), "/work/site": str(folder / "site")},
        test_files={"/work/repo": str(folder / "tests")},
        test_paths=("tests",),
        test_command=("python3", "-S", "-m", "pytest", "-q", "--rootdir=.", "tests"),
        fail_to_pass=FAIL_TO_PASS,
        pass_to_pass=PASS_TO_PASS,
        test_seconds=120.0,
    )


def read_instance(params: Mapping[str, Any]) -> Instance:
    """For tasks of the format `sealed`: with limits that attackers reach soon."""
    limits = Limits(memory=256 * MIB, disk=48 * MIB, pids=48, flood=64 * MIB)
    gold = patch({"src/stack.py": CODE.encode()}, {"src/stack.py": MENDED.encode()})
    made = make_instance(Path(params["folder"]))
    return replace(made, limits=limits, image=params["image"], gold_patch=gold, test_seconds=120.0)


def lay(folder: Path, tree: dict[str, str]) -> None:
    """Write files."""
    for path, text in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@asynccontextmanager
async def working(backend: Backend, spec: SandboxSpec, instance: Instance) -> AsyncIterator[tuple[Instance, Sandbox]]:
    """The task as it is on a back end, and an agent's sandbox."""
    there = replace(instance, image=spec.image)
    sandbox, _ = await prepare(backend, there)
    async with sandbox:
        yield there, sandbox


class Court:
    """One event loop, and in it one back end of each kind, for all that is judged in a module."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._open: dict[Where, tuple[Backend, SandboxSpec]] = {}

    def verdict(
        self, instance: Instance, where: Where, *work: Callable[[Sandbox], Awaitable[object]], **settings: object
    ) -> Grade:
        """What is said of some work on a task."""

        async def run() -> Grade:
            if where not in self._open:
                self._open[where] = where()
            backend, spec = self._open[where]
            async with asyncio.timeout(280), working(backend, spec, instance) as (there, sandbox):
                for each in work:
                    await each(sandbox)
                return await judge(backend, there, sandbox, **settings)

        return self._runner.run(run())

    def close(self) -> None:
        """Close what was opened."""

        async def close() -> None:
            await asyncio.gather(*(backend.close() for backend, _ in self._open.values()))

        self._runner.run(close())
        self._runner.close()


async def judge(backend: Backend, instance: Instance, final: Sandbox, **settings: object) -> Grade:
    """The verdict on a sandbox."""

    async def fresh() -> Sandbox:
        return (await prepare(backend, instance, network=False))[0]

    return await grade(instance, final, fresh, **settings)  # type: ignore[arg-type]


def _copy(package: str, target: Path) -> None:
    for file in files(package) or ():
        lexer = file.parent.name == "lexers" and file.stem not in _LEXERS
        if file.suffix == ".py" and ".." not in file.parts and not lexer:
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), place)  # type: ignore[arg-type]
