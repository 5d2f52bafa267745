"""Small updates of a random tiny model by any algorithm or plug-in."""

from __future__ import annotations

import copy
from typing import Any

import torch
from support.levers import tiny_model

from palaestra.config import Recipe, parse_recipe
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner, Update
from palaestra.training.plugins import PLUGINS
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.trajectories.record import Node, StepRecord, Trajectory

MOMENT = Moment(1, 10)
TRIALS: dict[str, list[str]] = {}
"""Overrides that a plug-in needs beside its name to be built at all."""


def mix(plugin: str) -> list[str]:
    """Overrides of GRPO with one plug-in."""
    return ["algorithm.name=grpo", f"algorithm.plugins=[{plugin}]", *TRIALS.get(plugin, [])]


MIXES: list[list[str]] = [
    *([f"algorithm.name={name}", *TRIALS.get(name, [])] for name in sorted(ALGORITHMS)),
    *(mix(name) for name in PLUGINS if name not in ALGORITHMS),
]
"""Every algorithm and every plug-in on its own."""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe('name: x\ntasks: {train: "a:train", max_turns: 4}\nagent: {max_tokens: 6}\n', overrides)


def build(*overrides: str) -> Algorithm:
    return build_algorithm(recipe(*overrides))


def episodes(rewards: tuple[float, ...] = (0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1), seed: int = 0) -> list[Trajectory]:
    """Random talk in groups of four, of one to three turns."""
    g = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=g))

    trajectories = []
    for number, reward in enumerate(rewards):
        nodes: list[Node] = []
        steps: list[StepRecord] = []
        for _ in range(draw(1, 4)):
            nodes.append(Node(ids=[draw(1, 300) for _ in range(draw(1, 6))]))
            ids = [draw(1, 300) for _ in range(draw(1, 5))]
            nodes.append(Node(ids=ids, sampled=True, logprobs=[-5.0] * len(ids), entropies=[5.0] * len(ids)))
            steps.append(StepRecord(observation=str(draw(0, 3)), action="look", reward=0, completion=len(nodes) - 1))
        steps[-1].reward = float(reward)
        task = str(number // 4)
        trajectories.append(
            Trajectory(
                id=str(number),
                env="",
                task=task,
                group=task,
                total_reward=float(reward),
                success=reward > 0,
                nodes=nodes,
                steps=steps,
            )
        )
    return trajectories


def learner(*overrides: str, **config: Any) -> Learner:
    found = recipe(*overrides, *(f"learner.{key}={value}" for key, value in config.items()))
    model, algorithm = tiny_model(), build_algorithm(found)
    reference = copy.deepcopy(model) if "ref_logprob" in algorithm.requires else None
    return Learner(model, algorithm, config=found.learner, optimiser=found.optimiser, reference=reference)


def update(subject: Learner, batch: Batch, moment: Moment = MOMENT) -> tuple[Update, dict[str, torch.Tensor]]:
    """The update, and the gradients of its (last) step."""
    found: dict[str, torch.Tensor] = {}
    model, step = subject.policy.model, subject.optimiser.step

    def keep(lr: float) -> float:
        found.update({name: p.grad.clone() for name, p in model.named_parameters()})
        return step(lr)

    subject.optimiser.step = keep  # type: ignore[method-assign]
    try:
        return subject.update(batch, moment), found
    finally:
        del subject.optimiser.step  # type: ignore[method-assign]


def played(seed: int = 0) -> Batch:
    """The batch of `episodes`."""
    return build_rows(episodes(seed=seed)).batch


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=1e-4 if atol else 0)
