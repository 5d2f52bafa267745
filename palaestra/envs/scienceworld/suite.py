"""The `scienceworld` suite: `scienceworld/TASK:SPLIT` for each of its 30 types of task, or all of them."""

from __future__ import annotations

from palaestra.envs.scienceworld.tasks import ALL, EASY, SPLITS, setting, variations
from palaestra.envs.tasks import Task, TaskSuite
from palaestra.errors import DataError, UnknownNameError

ENV = "scienceworld/Task-v0"


def load(
    split: str,
    level: str | None = None,
    simplifications: str = EASY,
    admissible: bool = True,
    max_turns: int | None = None,
) -> TaskSuite:
    """The variations of one split, as the package divides them.

    Args:
        split: `train`, `validation` (the package's `dev`) or `test`.
        level: a type of task, or `all`, the default: the types by turns.
        simplifications: the package's, with commas between; `easy`, as in the paper, unless given, and none if empty.
        admissible: whether every turn lists the valid actions; without, a step is several times as fast.
        max_turns: limit of an episode, the package's 100 unless given.

    Raises:
        UnknownNameError: no such task, split or simplification.
        DataError: the simplifications take away what the task needs.
    """
    name = level or ALL
    if split not in SPLITS:
        raise UnknownNameError("split of scienceworld", split, SPLITS)
    if not isinstance(admissible, bool):
        raise DataError(f"admissible of scienceworld is true or false, not {admissible!r}")
    tasks = variations(name, split)
    for task in {task for task, _ in tasks}:
        setting(task, 0, simplifications)
    extra = {"admissible": admissible} | ({} if max_turns is None else {"max_turns": max_turns})

    def build(index: int) -> Task:
        task, variation = tasks[index]
        params = {"task": task, "variation": variation, "simplifications": simplifications, **extra}
        label = "" if simplifications == EASY else f"-{simplifications.replace(',', '+') or 'full'}"
        return Task(env=ENV, name=f"{task}-{variation}{label}", split=split, seed=variation, params=params, kind=task)

    return TaskSuite(f"scienceworld/{name}", split, len(tasks), build)
