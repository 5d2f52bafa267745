"""Where branches fall: AEPO's rule against ARPO's, by real play on household tasks with the shipped model.

Each rule plays the same tasks with the same model, k rollouts a task, once for each seed. ARPO's rule is AEPO's without
its two remedies: half of the rollouts begin at the prompt whatever the entropies say, and nothing keeps a path from
branching at every result. AEPO's paper reports that with ARPO 93.4 % of the branches of a prompt fall on one to three
trajectories. Reported for both: the share of branches on the three paths of their task that have most (a path is one
rollout, from its own beginning on; `of_root` counts a branch for the rollout at the prompt that it goes back to), the
most branches in a row, how different the rollouts of a task are (mean edit distance between their actions, over the
longer one's length), what was played and how long that took, and `reread`, the share of all tokens of the rollouts
that branches have from their parents. `flat` is k rollouts from the prompt. The ratio is ARPO's top-three share over
AEPO's.

Above 1 would be the paper's claim, and does not come about here: it is about 1. A budget of k/2 branches is spent
within two or three results, on whatever paths the draw visits first, and by then the penalty has taken 5 or 10 % off
the probability of a few. The bar says only that AEPO does not concentrate branches.

    python benchmarks/branching.py [--tasks 32] [--k 16] [--seeds 3] [--temperature 1.0] [--max-turns 30]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from _harness import conclude

from palaestra.agents.branching import BranchRule
from palaestra.agents.models import load_model
from palaestra.agents.opening import language_agent
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.tree import TreePlanner
from palaestra.config import AgentConfig
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.trajectories.branches import TOP, branch_statistics
from palaestra.trajectories.record import Trajectory

BAR = 0.9
Groups = list[list[Trajectory]]


def planners(k: int) -> dict[str, TreePlanner | None]:
    """By name of the rule; `two` and `steep` make room for the penalty: many branches from few rollouts, and a
    probability that follows entropy ten times as closely."""
    arpo, steep = BranchRule(rho=0.0), BranchRule(gamma=2.0)
    return {
        "aepo": TreePlanner(),
        "arpo": TreePlanner(arpo, begin=k // 2),
        "aepo_code": TreePlanner(BranchRule(decision="code"), lagged=True),
        "aepo_two": TreePlanner(begin=2),
        "arpo_two": TreePlanner(arpo, begin=2),
        "aepo_steep": TreePlanner(steep),
        "arpo_steep": TreePlanner(replace(steep, rho=0.0), begin=k // 2),
        "flat": None,
    }


async def played(planner: TreePlanner | None, args: argparse.Namespace, seed: int, loaded: Any) -> Groups:
    """Every task once, `k` rollouts each."""
    suite = load_suite(args.suite)
    agent = language_agent(loaded, AgentConfig(max_tokens=12, temperature=args.temperature), slots=args.slots)
    episodes = [
        Episode(task=suite[n], id=f"{n}/{member}", group=f"{n}", seed=seed)
        for n in range(args.tasks)
        for member in range(args.k)
    ]
    limits = RolloutLimits(max_turns=args.max_turns, concurrency=args.slots)
    try:
        found = await rollout(episodes, agent, make, limits, planner=planner)
    finally:
        await agent.engine.close()
    return [found[at : at + args.k] for at in range(0, len(found), args.k)]


def of_root(group: Sequence[Trajectory]) -> Counter[str]:
    """Branches by the rollout at the prompt that they go back to."""
    by_id, found = {t.id: t for t in group}, Counter[str]()
    for t in group:
        root = t
        while root.parent:
            root = by_id[root.parent]
        if t.parent:
            found[root.id] += 1
    return found


def difference(group: Sequence[Trajectory]) -> float:
    """Mean over pairs of the edit distance between their actions, over the longer one's length."""
    actions = [[step.action for step in t.steps] for t in group]
    pairs = [edits(a, b) / max(len(a), len(b), 1) for a, b in itertools.combinations(actions, 2)]
    return math.fsum(pairs) / max(1, len(pairs))


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def figures(groups: Groups, seconds: float) -> dict[str, Any]:
    """Of all tasks and seeds under one rule."""
    every = [t for group in groups for t in group]
    roots = [of_root(group) for group in groups]
    total = sum(map(Counter.total, roots))
    widest = sum(count for root in roots for _, count in root.most_common(TOP))
    tokens = sum(t.sampled_tokens for t in every)
    inherited = sum(len(n.ids) for t in every if t.parent for n in t.nodes[: t.steps[t.branched_at - 1].completion + 1])
    found = {
        "difference": math.fsum(map(difference, groups)) / len(groups),
        "success": sum(t.success for t in every) / len(every),
        "solved_by_any": sum(any(t.success for t in group) for group in groups) / len(groups),
        "env_steps_per_task": sum(len(t.own_steps) for t in every) / len(groups),
        "tokens_per_task": tokens / len(groups),
        "seconds": seconds,
        "reread": inherited / sum(len(node.ids) for t in every for node in t.nodes),
    }
    return {**branch_statistics(every), **({"of_root_top3": widest / total} if total else {}), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="alfworld/small:train")
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max-turns", type=int, default=30)
    parser.add_argument("--slots", type=int, default=128)
    args = parser.parse_args()
    loaded = load_model("palaestra-tiny")
    results: dict[str, dict[str, Any]] = {}
    for name, planner in planners(args.k).items():
        groups: Groups = []
        began = time.perf_counter()
        for seed in range(args.seeds):
            groups += asyncio.run(played(planner, args, seed, loaded))
        results[name] = figures(groups, time.perf_counter() - began)
        print(f"{name}: {results[name]}", flush=True)
    ratio = results["arpo"]["branch_top3"] / results["aepo"]["branch_top3"]
    conclude("branching", ratio, BAR, k=args.k, groups=args.tasks * args.seeds, **results)


if __name__ == "__main__":
    main()
