"""What each algorithm's update costs over GRPO's: CPU time, on the same episodes with the shipped model.

All contenders take one update of the same random episodes in turns. With one mini-batch GRPO's own forward pass gives
the old policy's numbers; algorithms that shape advantages by its entropies need a scoring pass before. With several
mini-batches everybody needs it.

    python benchmarks/algorithm_cost.py [--rounds 5] [--episodes 32 --turns 8 --mini-batches 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _harness import conclude, in_turns, speed_up

from palaestra.agents.models import load_model
from palaestra.config import parse_recipe
from palaestra.training.algorithms import ALGORITHMS, build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

BAR = 1.6
"""A scoring pass is about a third of forward and backward together."""
RECIPE = 'name: cost\ntasks: {train: "none:train", max_turns: 8}\nagent: {max_tokens: 12}\noptimiser: {lr: 1.0e-6}\n'


def episodes(count: int, turns: int) -> list[Trajectory]:
    """Groups of eight of random talk, 16 tokens of observation and 8 of action a turn; each group has both outcomes."""
    g = torch.Generator().manual_seed(0)
    played = []
    for number in range(count):
        nodes: list[Node] = []
        steps: list[StepRecord] = []
        for turn in range(turns):
            nodes.append(Node(ids=torch.randint(10, 400, (16,), generator=g).tolist()))
            ids = torch.randint(10, 400, (8,), generator=g).tolist()
            nodes.append(Node(ids=ids, sampled=True, logprobs=[-2.0] * 8, entropies=[2.0] * 8))
            steps.append(StepRecord(observation=str(turn), action="", reward=0.0, completion=len(nodes) - 1))
        reward = steps[-1].reward = float(number % 2)
        name = str(number)
        played.append(
            Trajectory(id=name, env="", task="", group=str(number // 8), total_reward=reward, nodes=nodes, steps=steps)
        )
    return played


def contender(name: str, batch: Batch, mini_batches: int) -> Callable[[], None]:
    """One update."""
    recipe = parse_recipe(RECIPE, [f"algorithm.name={name}", f"learner.mini_batches={mini_batches}"])
    model = load_model("palaestra-tiny").model
    learner = Learner(model, build_algorithm(recipe), config=recipe.learner, optimiser=recipe.optimiser)
    return lambda: void(learner.update(batch, Moment(0, 10)))


def void(_: Any) -> None:
    """Contenders report no work."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--mini-batches", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = build_rows(episodes(args.episodes, args.turns)).batch
    contenders = {name: contender(name, batch, args.mini_batches) for name in ALGORITHMS}
    timings = in_turns(contenders, args.rounds)
    cost = {name: 1 / speed_up(timings[name], timings["grpo"], "cpu") for name in ALGORITHMS if name != "grpo"}
    for name, ratio in sorted(cost.items(), key=lambda item: item[1]):
        print(f"{name:10} {ratio:5.2f} x the CPU time of grpo")
    conclude("algorithm_cost", max(cost.values()), BAR, at_most=True, **cost)


if __name__ == "__main__":
    main()
