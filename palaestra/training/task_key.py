"""What a task is remembered by: its name and its seed, as another seed may be another difficulty."""

from __future__ import annotations

from palaestra.envs.tasks import Task
from palaestra.training.batch import Batch


def key_of(task: Task) -> str:
    """Of a task; the same for the episodes that played it."""
    return f"{task.seed} {task.name}"


def keys_of(batch: Batch) -> list[str]:
    """[N]: of each trajectory's task."""
    assert batch.episodes is not None
    return [f"{episode.task_seed or 0} {episode.task}" for episode in batch.episodes]
