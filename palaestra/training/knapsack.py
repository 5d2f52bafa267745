"""How many rollouts a task is worth (Knapsack RL, Li et al. 2025, arXiv 2509.25849).

    v(N, p) = (1 - p^N - (1-p)^N) p (1-p)^2
    maximise  sum_q v(N_q, p_q)    over integers  low <= N_q <= high,  sum_q N_q = budget

The first factor is the chance that the N outcomes are not all equal, so that their group has a gradient; the rest is
what a gradient is worth. `v` is concave in N from N = 1 on:

    v(N+1, p) - v(N, p) = (p^N (1-p) + (1-p)^N p) p (1-p)^2         falls in N

so rollouts given one by one to whoever gains most make the best allocation, and no table of a dynamic programme is
needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def mixed(rollouts: int, rate: float) -> float:
    """Chance that `rollouts` outcomes with success rate `rate` are not all equal."""
    return 1 - rate**rollouts - (1 - rate) ** rollouts


def value(rollouts: int, rate: float) -> float:
    """`v`; 0 for one rollout, and for rates of 0 and 1."""
    return mixed(rollouts, rate) * rate * (1 - rate) ** 2


def gain(rollouts: int, rate: float) -> float:
    """What one more rollout adds to `value`."""
    return (rate**rollouts * (1 - rate) + (1 - rate) ** rollouts * rate) * rate * (1 - rate) ** 2


def allocate(rates: Sequence[float], budget: int, low: int, high: int, least_gain: float = 0.0) -> list[int]:
    """The rollouts of each task.

    What is left when nobody gains more than `least_gain` goes to tasks with rate 0, whose rate may be an estimate that
    more rollouts correct; when these have `high`, to whoever has fewest.

    Args:
        rates: success rates in [0, 1].
        budget: sum of the rollouts.
        low: fewest of a task.
        high: most of a task.
        least_gain: 0 makes the allocation the best one.

    Raises:
        ValueError: the bounds leave no allocation with this sum.
    """
    if not low * len(rates) <= budget <= high * len(rates):
        raise ValueError(f"{len(rates)} tasks cannot have {budget} rollouts of {low} to {high} each")
    rollouts = [low] * len(rates)

    def entry(task: int) -> tuple[float, int, int, int]:
        """Who comes first is given the next rollout."""
        count, rate = rollouts[task], rates[task]
        more = gain(count, rate)
        return (-more, 0, count, task) if more > least_gain else (0.0, 1 if rate == 0 else 2, count, task)

    queue = [entry(task) for task in range(len(rates)) if low < high]
    heapq.heapify(queue)
    for _ in range(budget - low * len(rates)):
        task = queue[0][-1]
        rollouts[task] += 1
        if rollouts[task] < high:
            heapq.heapreplace(queue, entry(task))
        else:
            heapq.heappop(queue)
    return rollouts
