import sys
import types
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra import Task, TaskSuite, load_suite, register_suite
from palaestra.envs import tasks
from palaestra.envs.tasks import suite_names
from palaestra.errors import ConfigError, EnvError, UnknownNameError


def _suite(size: int) -> TaskSuite:
    return TaskSuite("t", "train", size, lambda index: Task(env="t/E-v0", name=f"n{index}", seed=index))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_LOADERS", dict(tasks._LOADERS))


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("palaestra_test_suites")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_a_suite_builds_on_demand() -> None:
    built: list[int] = []

    def build(index: int) -> Task:
        built.append(index)
        return Task(env="t/E-v0", name=str(index))

    suite = TaskSuite("t", "train", 1000, build)
    assert suite[-1].name == "999"
    assert len(suite[10:500:7]) == 70
    assert built == [999]


@given(st.integers(0, 40), st.lists(st.slices(40), max_size=3))
def test_slicing_is_that_of_a_list(size: int, slices: list[slice]) -> None:
    suite, names = _suite(size), [f"n{index}" for index in range(size)]
    for part in slices:
        suite, names = suite[part], names[part]
    assert [task.name for task in suite] == names
    assert [suite[index].name for index in range(len(suite))] == names
    with pytest.raises(IndexError):
        suite[len(suite)]


def test_a_suite_says_what_it_is() -> None:
    assert repr(_suite(3)) == "TaskSuite(t:train, 3 tasks)"


def test_a_task_survives_json() -> None:
    task = Task(env="t/E-v0", name="a", split="valid_seen", seed=3, params={"x": [1, {"y": None}]}, kind="k")
    assert msgspec.json.decode(msgspec.json.encode(task), type=Task) == task


def test_load_suite_passes_split_level_and_params() -> None:
    calls: list[Any] = []

    def load(split: str, level: str | None, **params: Any) -> TaskSuite:
        calls.append((split, level, params))
        return _suite(2)

    register_suite("mine", load)
    assert len(load_suite("mine:test")) == 2
    load_suite("mine/hard:train", rooms=3)
    assert calls == [("test", None, {}), ("train", "hard", {"rooms": 3})]
    assert "mine" in suite_names()


def test_a_loader_by_name_is_imported_when_first_used(module: types.ModuleType) -> None:
    register_suite("later", "palaestra_test_suites:load")
    assert "later" in suite_names()
    module.load = lambda split, level: _suite(5)  # type: ignore[attr-defined]
    assert len(load_suite("later:train")) == 5
    del module.load
    assert len(load_suite("later:train")) == 5


def test_a_loader_by_wrong_name() -> None:
    register_suite("broken", "no_such_module_anywhere:load")
    with pytest.raises(EnvError, match=r"cannot load 'no_such_module_anywhere:load'.*No module named"):
        load_suite("broken:train")


@pytest.mark.parametrize(
    "reference", ["alfworld", ":test", "alfworld:", "", "alfworld:test[", "alfworld:test[3]", "alfworld:test[a:b]"]
)
def test_a_reference_needs_name_and_split(reference: str) -> None:
    with pytest.raises(ConfigError, match="write NAME"):
        load_suite(reference)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown suite 'alfwrold'; did you mean 'alfworld'"):
        load_suite("alfwrold:test")


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_a_suite_name_is_one_word(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a suite"):
        register_suite(name, lambda split, level: _suite(1))


def test_the_built_in_suite_is_there() -> None:
    assert "alfworld" in suite_names()
    assert len(load_suite("alfworld:test")) >= 200


def test_a_reference_may_take_some_of_the_tasks() -> None:
    whole = load_suite("alfworld/small:test")
    assert [task.name for task in load_suite("alfworld/small:test[300:302]")] == [whole[300].name, whole[301].name]
    assert len(load_suite("alfworld/small:test[-5:]")) == 5
    assert len(load_suite("alfworld:test[:7]")) == 7
