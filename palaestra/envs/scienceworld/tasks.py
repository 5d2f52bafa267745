"""The 30 types of task, their variations, and which of these are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from palaestra.errors import DataError, UnknownNameError

TASKS = {
    "boil": 30,
    "melt": 30,
    "freeze": 30,
    "change-the-state-of-matter-of": 30,
    "use-thermometer": 540,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "find-animal": 300,
    "grow-plant": 126,
    "grow-fruit": 126,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "lifespan-longest-lived": 125,
    "lifespan-shortest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
}
"""Type of task -> its variations, in the paper's order."""
ALL = "all"
"""The level with every type of task."""
SPLITS = ("train", "validation", "test")
SIMPLIFICATIONS = ("teleportAction", "openDoors", "openContainers", "selfWateringFlowerPots", "noElectricalAction")
EASY = "easy"
"""The package's name of the first, second, fourth and, where no circuit is built, fifth of them together."""
_ELECTRICAL = ("power-component", "conductivity")


class Setting(NamedTuple):
    """Which episode: everything that fixes it."""

    task: str
    variation: int
    simplifications: str
    """As the package wants them: `easy`, or names with commas between, or nothing."""


def setting(task: str, variation: object, simplifications: object) -> Setting:
    """A setting that the package will accept.

    Raises:
        UnknownNameError: no such task or simplification.
        DataError: the task has no such variation, or simplifications are not a text, or take away what it needs.
    """
    check_task(task)
    if not isinstance(variation, int) or isinstance(variation, bool) or not 0 <= variation < TASKS[task]:
        raise DataError(f"{task} has variations 0 to {TASKS[task] - 1}, not {variation!r}")
    if not isinstance(simplifications, str):
        raise DataError(f"simplifications are names with commas between, not {simplifications!r}")
    names = [name for name in simplifications.replace(" ", "").split(",") if name]
    for name in names:
        if name not in (EASY, *SIMPLIFICATIONS):
            raise UnknownNameError("simplification of scienceworld", name, (EASY, *SIMPLIFICATIONS))
    if EASY in names and len(set(names)) > 1:
        raise DataError(f"the simplification {EASY} stands alone, it is {simplifications!r}")
    if "noElectricalAction" in names and any(part in task for part in _ELECTRICAL):
        raise DataError(f"{task} cannot be solved with noElectricalAction")
    return Setting(task, variation, ",".join(sorted(set(names))))


def check_task(task: str) -> None:
    """Whether there is such a type of task.

    Raises:
        UnknownNameError: there is not.
    """
    if task not in TASKS:
        raise UnknownNameError("task of scienceworld", task, TASKS)


def fold(task: str, split: str) -> range:
    """The task's variations of a split: the package's half, quarter and quarter.

    Raises:
        UnknownNameError: no such task or split.
    """
    check_task(task)
    if split not in SPLITS:
        raise UnknownNameError("split of scienceworld", split, SPLITS)
    quarter = TASKS[task] // 4
    first, end = {"train": (0, 2), "validation": (2, 3), "test": (3, None)}[split]
    return range(first * quarter, TASKS[task] if end is None else end * quarter)


def variations(level: str, split: str) -> list[tuple[str, int]]:
    """All tasks of a split: of one type, or of `all` by turns, so that any part of them has many types.

    Raises:
        UnknownNameError: no such level or split.
    """
    if level not in (ALL, *TASKS):
        raise UnknownNameError("level of scienceworld", level, (ALL, *TASKS))
    folds = {task: fold(task, split) for task in (TASKS if level == ALL else (level,))}
    longest = max(len(numbers) for numbers in folds.values())
    return [(task, numbers[i]) for i in range(longest) for task, numbers in folds.items() if i < len(numbers)]


def of_params(params: Mapping[str, Any]) -> Setting:
    """The setting that a task's params describe; see `setting`."""
    return setting(str(params.get("task")), params.get("variation"), params.get("simplifications", EASY))
