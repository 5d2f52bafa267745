"""Small updates of a random tiny model by any algorithm or plug-in."""

from __future__ import annotations

from typing import Any

import torch
from support.levers import tiny_model

from palaestra.config import Recipe, parse_recipe
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.demonstrations import key_of
from palaestra.training.learner import Learner, Update
from palaestra.training.plugins import PLUGINS
from palaestra.training.plugins.hpt import Switch
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.skill_teacher import SkillTeacher
from palaestra.training.teachers import ANY, Teachers
from palaestra.trajectories.record import Node, StepRecord, Trajectory

MOMENT = Moment(1, 10)
BROKEN = 5
"""The episode that does not act in its last turn."""
TRIALS: dict[str, list[str]] = {
    "adaptive_entropy": ["settings.adaptive_entropy.start=1"],
    "clip_b": ["settings.clip_b.mu=1"],
    "clip_cov": [f"settings.clip_cov.{each}" for each in ("rate=0.2", "low=0", "high=.inf")],
    "entrocraft": [f"settings.entrocraft.{each}=[0, 0.1]" for each in ("start", "end")],
    "epo": ["settings.epo.entropy_coeff=1"],
    "hpt": ["settings.hpt.gamma=2"],
    "kdrl": ["settings.kdrl={teacher: another, beta: 0.5}"],
    "lp_reg": ["settings.lp_reg={rho: 0.5, kappa: 0.7}"],
    "mpt_mask": ["settings.mpt_mask={tau: 0.003, sigma: 99}"],
    "opd": ["settings.opd.teacher=another"],
    "outcome_scale": ["normalise=mean"],
    "overlong": ["settings.overlong={limit: 6, buffer: 0.5}"],
    "ref_reset": ["kl_coeff=0.5", "settings.ref_reset.every=1"],
    "self_imitation": ["settings.self_imitation={warmup: 0, low: 0}"],
    "siren": ["settings.siren={coeff: 1, anchor: 1}"],
    "skill_sd": ["settings.skill_sd.lam=0.5"],
    "spear": ["settings.self_imitation={warmup: 0, low: 0}", "settings.clip_cov={rate: 0.2, low: 0}"],
}
"""What is set of `algorithm` so that a method has an effect on so few tokens, or can be built at all; `another` is the
teacher that `furnish` brings."""


def mix(plugin: str) -> list[str]:
    """Overrides of GRPO with one plug-in."""
    return ["algorithm.name=grpo", f"algorithm.plugins=[{plugin}]", *trial(plugin)]


def trial(name: str) -> list[str]:
    """Overrides that an algorithm or plug-in is tried with, beside its name."""
    return [f"algorithm.{each}" for each in TRIALS.get(name, [])]


def trial_base(name: str) -> list[str]:
    """Those of GRPO, to compare with: the same, but for what plug-ins are set to."""
    return ["algorithm.name=grpo", *(each for each in trial(name) if not each.startswith("algorithm.settings"))]


MIXES: list[list[str]] = [
    *([f"algorithm.name={name}", *trial(name)] for name in sorted(ALGORITHMS)),
    *(mix(name) for name in PLUGINS if name not in ALGORITHMS),
]
"""Every algorithm and every plug-in on its own."""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe('name: x\ntasks: {train: "a:train", max_turns: 4}\nagent: {max_tokens: 6}\n', overrides)


def build(*overrides: str) -> Algorithm:
    return build_algorithm(recipe(*overrides))


def episodes(rewards: tuple[float, ...] = (0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1), seed: int = 0) -> list[Trajectory]:
    """Random talk in groups of four, of one to three turns; one of them ends without an action."""
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
        if number == BROKEN:
            steps[-1].action = ""
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


def furnish(algorithm: Algorithm) -> None:
    """What a run would have given: a teacher, a skill and a way to write it, and a demonstration of the first task."""
    for provider in algorithm.parts.providers:
        if isinstance(provider, Teachers) and "another" in provider.paths.values():
            provider.models = {ANY: tiny_model(2)}
        if isinstance(provider, SkillTeacher):
            provider.encode, provider.longest = lambda text: [1 + len(text) % 200, 7], 256
            provider.bank.add("", "look twice")
    for replay in algorithm.parts.replays:
        if isinstance(replay, Switch):
            solved = next(each for each in episodes() if each.success)
            replay.demonstrations.known[key_of(solved)] = solved


def learner(*overrides: str, **config: Any) -> Learner:
    """Of the tiny model; the reference has other weights."""
    found = recipe(*overrides, *(f"learner.{key}={value}" for key, value in config.items()))
    algorithm = build_algorithm(found)
    furnish(algorithm)
    reference = tiny_model(1) if "ref_logprob" in algorithm.requires else None
    return Learner(tiny_model(), algorithm, config=found.learner, optimiser=found.optimiser, reference=reference)


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
    """Gradients of the same parameters; that there is none to compare is no agreement."""
    assert a
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=1e-4 if atol else 0)
