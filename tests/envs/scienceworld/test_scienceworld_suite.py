"""The scienceworld suite, which needs neither the package nor Java."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.scienceworld.env import ScienceWorldEnv
from palaestra.envs.scienceworld.solution import Done, advise
from palaestra.envs.scienceworld.tasks import SPLITS, TASKS, fold, setting
from palaestra.envs.tasks import load_suite
from palaestra.errors import DataError, UnknownNameError


@given(st.sampled_from(list(TASKS)))
def test_folds_divide_the_variations(task: str) -> None:
    numbers = [number for split in SPLITS for number in fold(task, split)]
    assert numbers == list(range(TASKS[task]))


def test_all_has_every_type_by_turns() -> None:
    suite = load_suite("scienceworld:test")
    assert len(suite) == 1819
    assert [task.kind for task in suite[:30]] == list(TASKS)
    assert len({task.name for task in suite}) == 1819


def test_tasks_name_type_variation_and_simplifications() -> None:
    task = load_suite("scienceworld/boil:validation", simplifications="openDoors,teleportAction", admissible=False)[0]
    assert task.name == "boil-14-openDoors+teleportAction"
    assert (task.params["variation"], task.params["admissible"], task.kind) == (14, False, "boil")
    assert load_suite("scienceworld/boil:train", simplifications="")[0].name == "boil-0-full"
    assert load_suite("scienceworld/boil:train")[0].params["simplifications"] == "easy"


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'boil'"):
        load_suite("scienceworld/boyl:train")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("scienceworld:dev")
    with pytest.raises(UnknownNameError, match="'openDoors'"):
        load_suite("scienceworld:train", simplifications="openDoor")
    with pytest.raises(UnknownNameError, match="task"):
        setting("cook", 0, "")
    with pytest.raises(UnknownNameError, match="level"):
        ScienceWorldEnv("cook")


@pytest.mark.parametrize(
    ("variation", "simplifications"),
    [(20, ""), (-1, ""), ("0", ""), (True, ""), (0, 7), (0, "easy,openDoors"), (0, "noElectricalAction")],
)
def test_settings_that_make_no_sense_are_refused(variation: object, simplifications: object) -> None:
    with pytest.raises(DataError):
        setting("power-component", variation, simplifications)


def follow(done: Sequence[tuple[str, str, str]], simplifications: str, refused: Sequence[int] = ()) -> str:
    solution = ("open door to kitchen", "go to kitchen", "activate stove", "wait")
    record = [Done(*one, i not in refused) for i, one in enumerate(done)]
    return advise(solution, record, setting("boil", 0, simplifications))


def test_the_solution_is_followed_and_found_back_to() -> None:
    start = [("open door to kitchen", "hall", "hall")]
    assert follow([], "easy") == "open door to kitchen"
    assert follow(start, "easy") == "go to kitchen"
    assert follow(start, "easy", refused=[0]) == "open door to kitchen"
    away = [*start, ("go to attic", "hall", "attic"), ("go to roof", "attic", "roof")]
    assert follow(away, "easy") == "teleport to hall"
    assert follow(away, "") == "go to attic"
    assert follow([*away, ("go to attic", "roof", "attic")], "openDoors") == "go to hall"
    assert follow([*away, ("teleport to hall", "roof", "hall")], "easy") == "go to kitchen"
    assert follow([*away, ("x", "roof", "roof"), ("teleport to hall", "roof", "hall")], "easy") == "go to kitchen"
    whole = [*start, ("go to kitchen", "hall", "kitchen"), ("activate stove", "kitchen", "kitchen")]
    assert follow([*whole, ("wait", "kitchen", "kitchen")], "easy") == "wait"
