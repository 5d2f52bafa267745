"""The hash chain of a recorded episode: what the rollout driver writes and a replay compares."""

from __future__ import annotations

from palaestra.envs.hashing import chain


def start_link(task: str, seed: int, observation: str) -> str:
    """`Trajectory.start_hash`: of the task's name, its seed and the first observation."""
    return chain("", task, seed, observation)


def next_link(previous: str, action: str, observation: str, reward: float, terminated: bool, truncated: bool) -> str:
    """`StepRecord.state_hash`: of everything so far and what the environment made of `action`.

    The reward is that of `step` alone. What `verify` adds at the end, and the flag that the driver sets at its own
    limit of turns, are in the record but not in the chain.
    """
    return chain(previous, action, observation, reward, terminated, truncated)
