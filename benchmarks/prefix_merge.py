"""Tokens that an update reads, and what it takes: one row per turn against rows that share what they begin with.

One row per turn, each with all turns before it, is how learners read episodes that come as requests to an endpoint. The
same rows go through the same update twice, apart and merged; loss and gradients must be equal to 1e-5, and what is read
must grow as the episode does. A second pair drops the reasoning of earlier turns from the prompt, so that the rows are
a tree and no chain; a third has windows. Last, rows that share nothing: packed into common sequences
(`learner.packing`) against padded.

    python benchmarks/prefix_merge.py [--turns 4 16 64] [--rounds 3]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _harness import Timing, conclude, in_turns, speed_up
from torch import Tensor

from palaestra.agents.models import load_model
from palaestra.config import parse_recipe
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

TASK, OBSERVATION, THOUGHT, ACTION = 24, 14, 8, 6
"""Tokens of a prompt, of each observation, and of each completion's two parts."""
EPISODES = 4
CLOSE = 1e-5
BAR = 8.0
LINEAR = 1.25
"""Tokens read a turn may differ so much between short episodes and long ones; apart they differ tenfold."""


@dataclass(frozen=True)
class Outcome:
    """An update."""

    read: int
    """Tokens that went through the model."""
    loss: float
    gradient: dict[str, Tensor]


def episodes(turns: int, context: str) -> list[Trajectory]:
    """Random talk of one group. `context`: what a prompt has of earlier turns: `full`, `actions` or `window`."""
    random = torch.Generator().manual_seed(turns)

    def draw(count: int) -> list[int]:
        return torch.randint(2, 1600, (count,), generator=random).tolist()

    task = draw(TASK)
    found = []
    for number in range(EPISODES):
        nodes, steps = [Node(ids=task)], []
        kept: list[int] = []
        for _ in range(turns):
            observation, completion = draw(OBSERVATION), draw(THOUGHT + ACTION)
            nodes.append(Node(ids=observation))
            past = kept[-8:] if context == "window" else kept
            prompt = [0, *past, len(nodes) - 1]
            guess = [-7.0] * len(completion)
            nodes.append(Node(ids=completion, sampled=True, logprobs=guess, entropies=[6.0] * len(completion)))
            steps.append(StepRecord(observation="", action="act", reward=0.0, completion=len(nodes) - 1, prompt=prompt))
            kept += [len(nodes) - 2, len(nodes) - 1]
            if context == "actions":  # as chat templates do that leave earlier reasoning out
                nodes.append(Node(ids=completion[THOUGHT:]))
                kept[-1] = len(nodes) - 1
        steps[-1].reward = float(number % 2)
        found.append(
            Trajectory(
                id=f"{number}", env="", task="", group="g", nodes=nodes, steps=steps, total_reward=float(number % 2)
            )
        )
    return found


def row_per_turn(trajectories: Sequence[Trajectory]) -> Batch:
    """The batch in which no row goes on with another: the record says of each turn that its context was cut."""
    batch = build_rows(trajectories).batch
    rows, source = [], []
    for b in range(len(batch.ids)):
        for step in batch.step_id[b].unique().tolist():
            if step >= 0:
                rows.append(batch.step_id[b] == step)
                source.append(b)
    index, mask = torch.tensor(source), torch.stack(rows)
    last = torch.where(mask, torch.arange(mask.shape[1]), 0).amax(1)
    inside = torch.arange(mask.shape[1]) <= last[:, None]
    return batch.with_(
        ids=torch.where(inside, batch.ids[index], 0),
        length=last + 1,
        mask=mask,
        step_id=torch.where(mask, batch.step_id[index], -1),
        traj=batch.traj[index],
        group=batch.group[index],
        reward=batch.reward[index],
        rollout_logprob=torch.where(mask, batch.rollout_logprob[index], 0.0),
        rollout_entropy=torch.where(mask, batch.rollout_entropy[index], 0.0),
    )


def update(model: Any, batch: Batch, *overrides: str) -> Outcome:
    """One update of a copy of the model by GRPO with an entropy bonus."""
    settings = ["algorithm.name=grpo", "algorithm.entropy_coeff=0.01", "algorithm.aggregation=token-mean", *overrides]
    recipe = parse_recipe("name: x\ntasks: {train: 'a:train'}\n", settings)
    learner = Learner(copy.deepcopy(model), build_algorithm(recipe), config=recipe.learner, optimiser=recipe.optimiser)
    found: dict[str, Tensor] = {}
    step = learner.optimiser.step

    def keep(lr: float) -> float:
        found.update({n: p.grad.clone() for n, p in learner.policy.model.named_parameters() if p.grad is not None})
        return step(lr)

    learner.optimiser.step = keep  # type: ignore[method-assign]
    metrics = learner.update(batch, Moment(0, 10)).metrics
    return Outcome(int(metrics["tokens_trained"] or 0), float(metrics["loss"] or 0), found)


def difference(a: Outcome, b: Outcome) -> float:
    """Largest of loss and gradients; those of a parameter over its largest gradient, where that is above 1."""
    gradients = (float((a.gradient[n] - g).abs().max() / g.abs().max().clamp(min=1)) for n, g in b.gradient.items())
    return max(abs(a.loss - b.loss), *gradients)


def compare(model: Any, context: str, turns: int, rounds: int) -> dict[str, Any]:
    batch = build_rows(episodes(turns, context)).batch
    apart = row_per_turn(episodes(turns, context)) if context == "full" else batch
    merged = ["learner.merge_prefixes=episode"]
    outcomes: dict[str, Outcome] = {}

    def run(name: str, batch: Batch, *overrides: str) -> None:
        outcomes[name] = update(model, batch, *overrides)

    timings: dict[str, list[Timing]] = in_turns(
        {"apart": lambda: run("apart", apart), "merged": lambda: run("merged", apart, *merged)}, rounds
    )
    figures: dict[str, Any] = {
        "tokens_apart": outcomes["apart"].read,
        "tokens_merged": outcomes["merged"].read,
        "ratio": outcomes["apart"].read / outcomes["merged"].read,
        "difference": difference(outcomes["merged"], outcomes["apart"]),
        "speed_up_cpu": speed_up(timings["merged"], timings["apart"], "cpu"),
    }
    if context == "full":
        figures["difference_from_one_row"] = difference(outcomes["merged"], update(model, batch))
    print(context, turns, figures, flush=True)
    return figures


def packing(model: Any, rounds: int) -> dict[str, Any]:
    """Rows of very uneven lengths, none of which shares anything: padded, and packed."""
    random = torch.Generator().manual_seed(0)
    found = []
    for number in range(32):
        count = int((4.5 + torch.randn((), generator=random)).exp().clamp(8, 600))
        ids = torch.randint(2, 1600, (2, count), generator=random).tolist()
        guess = [-7.0] * count
        nodes = [Node(ids=ids[0]), Node(ids=ids[1], sampled=True, logprobs=guess, entropies=guess)]
        steps = [StepRecord(observation="", action="act", reward=float(number % 2), completion=1)]
        found.append(
            Trajectory(
                id=f"{number}", env="", task="", group="g", nodes=nodes, steps=steps, total_reward=float(number % 2)
            )
        )
    batch, outcomes = build_rows(found).batch, dict[str, Outcome]()

    def run(name: str, *overrides: str) -> None:
        outcomes[name] = update(model, batch, *overrides)

    timings = in_turns(
        {"padded": lambda: run("padded"), "packed": lambda: run("packed", "learner.packing=true")}, rounds
    )
    figures = {
        "speed_up_cpu": speed_up(timings["packed"], timings["padded"], "cpu"),
        "difference": difference(outcomes["packed"], outcomes["padded"]),
    }
    print("packing", figures, flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("palaestra-tiny").model
    found = {
        f"{context}_{turns}": compare(model, context, turns, args.rounds)
        for context in ("full", "actions", "window")
        for turns in args.turns
    }
    per_turn = [found[f"full_{turns}"]["tokens_merged"] / turns for turns in args.turns]
    growth, packed = max(per_turn) / min(per_turn), packing(model, args.rounds)
    equal = all(figures["difference"] <= CLOSE for figures in (*found.values(), packed))
    passed = conclude(
        "prefix_merge",
        found["full_16"]["ratio"] if "full_16" in found else found[f"full_{args.turns[-1]}"]["ratio"],
        BAR,
        also=equal and growth <= LINEAR,
        equal=equal,
        tokens_per_turn_grow=growth,
        packing=packed,
        **found,
    )
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
