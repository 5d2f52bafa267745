import pytest

from palaestra.envs.alfworld.game import KINDS
from palaestra.envs.alfworld.suite import SIZES
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError, UnknownNameError


def test_tasks_are_complete_and_stable() -> None:
    suite = load_suite("alfworld/small:test")
    task = suite[5]
    assert len(suite) == SIZES["test"]
    assert (task.env, task.name, task.split, task.seed) == ("alfworld/Household-v0", "small-5", "test", 5)
    assert task == load_suite("alfworld:test")[5]
    assert task.params == {"level": "small", "split": "test", "index": 5}


def test_kinds_take_turns() -> None:
    assert {task.kind for task in load_suite("alfworld/full:train")[:6]} == set(KINDS)
    assert {task.kind for task in load_suite("alfworld/small:train")[:4]} == set(KINDS[2:])


def test_slices_are_suites() -> None:
    suite = load_suite("alfworld/small:train")[10:20]
    assert [task.seed for task in suite] == list(range(10, 20))
    with pytest.raises(IndexError):
        suite[10]


@pytest.mark.parametrize("reference", ["alfworld/smal:test", "alfworld/small:tset", "alfworld/alfred:test"])
def test_unknown_names_are_told(reference: str) -> None:
    with pytest.raises(UnknownNameError):
        load_suite(reference)


def test_unknown_parameters_are_told() -> None:
    with pytest.raises(ConfigError, match="data"):
        load_suite("alfworld/small:test", data="x")
