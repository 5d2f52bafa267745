"""What the update of each algorithm and plug-in costs over GRPO's, in CPU time and in memory.

All contenders take one update of the same random episodes in turns, with the shipped model. With one mini-batch GRPO's
own forward pass gives the old policy's numbers; algorithms that shape advantages by its entropies need a scoring pass
before. With several mini-batches everybody needs it.

Memory is that of tensors, as torch's profiler sees it: the `peak` from the learner's beginning through two updates,
and what is `held` after them (weights, optimiser, whatever the method keeps). Policy, AdamW and gradients are in both
sides of a ratio. With a model of billions of weights the peak is nearer to what is held than here, where activations
are the larger part.

    python benchmarks/algorithm_cost.py [NAME ...] [--rounds 5] [--episodes 32 --turns 8 --mini-batches 1]
"""

from __future__ import annotations

import argparse
import copy
import gc
from collections.abc import Callable, Iterable
from itertools import accumulate, count
from typing import Any

import torch
from _harness import conclude, in_turns, speed_up
from torch.profiler import ProfilerActivity, profile

from palaestra.agents.models import load_model
from palaestra.config import parse_recipe
from palaestra.errors import PalaestraError
from palaestra.training.algorithms import ALGORITHMS, build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.plugins import PLUGINS
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

BAR = 3.5
"""A scoring pass is about a third of forward and backward together; a critic, or as many replayed rows as fresh ones,
doubles all of it."""
MEMORY_BAR = 2.1
"""Of what is held: a second set of weights with its optimiser."""
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
            steps.append(StepRecord(observation=str(turn), action="look", reward=0.0, completion=len(nodes) - 1))
        reward = steps[-1].reward = float(number % 2)
        name = str(number)
        played.append(
            Trajectory(id=name, env="", task="", group=str(number // 8), total_reward=reward, nodes=nodes, steps=steps)
        )
    return played


def overrides(name: str) -> list[str]:
    """An algorithm as it is, or GRPO with a plug-in."""
    return [f"algorithm.name={name}"] if name in ALGORITHMS else ["algorithm.name=grpo", f"algorithm.plugins=[{name}]"]


def contender(name: str, batch: Batch, mini_batches: int) -> Callable[[], None]:
    """One update."""
    recipe = parse_recipe(RECIPE, [*overrides(name), f"learner.mini_batches={mini_batches}"])
    model, algorithm = load_model("palaestra-tiny").model, build_algorithm(recipe)
    reference = copy.deepcopy(model) if "ref_logprob" in algorithm.requires else None
    learner = Learner(model, algorithm, config=recipe.learner, optimiser=recipe.optimiser, reference=reference)
    with torch.no_grad():  # a policy that has left its reference and its teacher, as after the first iteration
        for parameter in model.parameters():
            parameter.mul_(1.001)
    iterations = count()
    return lambda: void(learner.update(batch, Moment(next(iterations) % 10, 10)))


def void(_: Any) -> None:
    """Contenders report no work."""


def memory(name: str, batch: Batch, mini_batches: int) -> tuple[int, int]:
    """Bytes of tensors at the worst moment of two updates, and after them."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as profiled:
        update = contender(name, batch, mini_batches)
        update()
        update()
    results = profiled.profiler
    assert results is not None
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    levels = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    del update, results, profiled
    gc.collect()
    return max(levels), levels[-1]


def buildable(names: Iterable[str]) -> list[str]:
    """Those that a plain recipe can have; says why the others are left out."""
    found = []
    for name in names:
        try:
            build_algorithm(parse_recipe(RECIPE, overrides(name)))
            found.append(name)
        except PalaestraError as error:
            print(f"{name:18} left out: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="algorithms and plug-ins; default, all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--mini-batches", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = build_rows(episodes(args.episodes, args.turns)).batch
    names = ["grpo", *buildable(name for name in args.names or {**ALGORITHMS, **PLUGINS} if name != "grpo")]
    sizes = {name: memory(name, batch, args.mini_batches) for name in names}
    contenders = {name: contender(name, batch, args.mini_batches) for name in names}
    timings = in_turns(contenders, args.rounds)
    others = names[1:]
    cost = {name: 1 / speed_up(timings[name], timings["grpo"], "cpu") for name in others}
    peak, held = ({name: sizes[name][kind] / sizes["grpo"][kind] for name in others} for kind in (0, 1))
    for name in sorted(others, key=lambda name: cost[name]):
        print(f"{name:18} {cost[name]:5.2f} x grpo's CPU time, {peak[name]:5.2f} x its peak, {held[name]:5.2f} x held")
    figures = {name: {"time": cost[name], "peak": peak[name], "held": held[name]} for name in others}
    worst = max(cost.values())
    conclude("algorithm_cost", worst, BAR, at_most=True, held=max(held.values()), held_bar=MEMORY_BAR, **figures)


if __name__ == "__main__":
    main()
