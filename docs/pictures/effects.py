"""Draws what each algorithm and plug-in does to single tokens: the pictures of the pages under docs/algorithms.

The policy is a table of logits, one line for each place of twelve made-up episodes, so that its gradient shows token by
token how an update pushes. The real learner computes it, on the same episodes and weights for all methods, in the
second of two passes over them: the policy has moved by then, and ratios differ from 1.

    python docs/pictures/effects.py [NAME ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from palaestra.config import parse_recipe
from palaestra.training.algorithm import Algorithm
from palaestra.training.algorithms import ALGORITHMS, build_algorithm
from palaestra.training.demonstrations import key_of
from palaestra.training.learner import Learner
from palaestra.training.plugins import PLUGINS
from palaestra.training.plugins.hpt import Switch
from palaestra.training.rows import build_rows
from palaestra.training.seams import Moment
from palaestra.training.skill_teacher import SkillTeacher
from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.report.markup import Markup, render, tag

FOLDER = Path(__file__).parents[1] / "assets" / "effects"
GROUPS = [(0.0, 0.0, 0.0, 1.0), (1.0, 0.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)]
"""Returns: a task that is hard, one that is easy, and one that is always solved."""
TURNS, TOKENS, VOCABULARY = 3, 5, 24
ADVICE = [0, 0]
"""A skill's tokens: to the table, what comes behind them is somewhere else."""
SHOWN: dict[str, list[str]] = {
    "clip_cov": [f"algorithm.settings.clip_cov.{each}" for each in ("rate=0.2", "low=0.3", "high=.inf")],
    "kl_cov": ["algorithm.settings.kl_cov.rate=0.1"],
    "outcome_scale": ["algorithm.normalise=mean"],
    "self_imitation": ["algorithm.settings.self_imitation.warmup=0"],
    "spear": ["algorithm.settings.self_imitation.warmup=0"],
    "well_formed": ["algorithm.settings.well_formed.ngram=1", "algorithm.settings.well_formed.repeats=3"],
    "adaptive_entropy": ["algorithm.settings.adaptive_entropy.start=0.05"],
    "clip_b": ["algorithm.settings.clip_b.mu=1"],
    "entrocraft": [
        "algorithm.settings.entrocraft.unit=nats",
        "algorithm.settings.entrocraft.start=[0,0.1]",
        "algorithm.settings.entrocraft.end=[0,0.1]",
    ],
    "hpt": ["algorithm.settings.hpt.gamma=1"],
    "kdrl": ["algorithm.settings.kdrl.beta=0.5"],
    "opd": ["algorithm.settings.opd.lam=1"],
    "ref_reset": ["algorithm.kl_coeff=0.5", "algorithm.settings.ref_reset.every=1"],
    "skill_sd": ["algorithm.settings.skill_sd.lam=0.1"],
    "lp_reg": ["algorithm.settings.lp_reg.rho=0.2"],
    "mpt_mask": ["algorithm.settings.mpt_mask.tau=0.9", "algorithm.settings.mpt_mask.sigma=5"],
    "siren": ["algorithm.settings.siren.coeff=1"],
    "epo": ["algorithm.settings.epo.entropy_coeff=0.05"],
    "mismatch": ["algorithm.settings.mismatch.cap=1.05"],
}
"""Settings with which a method shows on so few tokens; the page names them."""
CELL, GAP, TOP, LEFT, LABEL = 15.0, 5.0, 40.0, 70.0, 24.0


class Table(nn.Module):
    """A policy with logits of its own for every place of every episode, in the shape of a language model."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.base_model = _Places(logits)
        self.head = nn.Linear(logits.shape[-1], logits.shape[-1], bias=False)
        self.head.weight = nn.Parameter(torch.eye(logits.shape[-1]), requires_grad=False)
        self.config = SimpleNamespace(get_text_config=SimpleNamespace)

    def get_output_embeddings(self) -> nn.Linear:
        """The identity: hidden states are logits already."""
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        """As a transformers model answers."""
        return SimpleNamespace(logits=self.head(self.base_model(input_ids).last_hidden_state))


class _Places(nn.Module):
    """The first token of a row is the number of its episode."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        """Hidden states [b, t, V]."""
        return SimpleNamespace(last_hidden_state=self.logits[input_ids[:, 0], : input_ids.shape[1]])


def episodes(logits: Tensor) -> list[Trajectory]:
    """Twelve episodes of three turns, sampled from the table."""
    g = torch.Generator().manual_seed(1)
    played = []
    for number, reward in enumerate(reward for group in GROUPS for reward in group):
        nodes, steps, place = [Node(ids=[number], role="system")], [], 0
        for turn in range(TURNS):
            nodes.append(Node(ids=[0]))
            logp = logits[number, place + 1 : place + 1 + TOKENS].log_softmax(-1)
            ids = torch.multinomial(logp.exp(), 1, generator=g)[:, 0]
            engine = logp.gather(1, ids[:, None])[:, 0] + 0.3 * torch.randn(TOKENS, generator=g)  # a little off
            entropy = -(logp.exp() * logp).sum(-1)
            nodes.append(Node(ids=ids.tolist(), sampled=True, logprobs=engine.tolist(), entropies=entropy.tolist()))
            last = reward if turn == TURNS - 1 else 0.0
            refused = (number + turn) % 5 == 0
            steps.append(
                StepRecord(
                    observation=str(turn), action="look", reward=last, completion=len(nodes) - 1, invalid=refused
                )
            )
            place += TOKENS + 1
        task = str(number // len(GROUPS[0]))
        played.append(
            Trajectory(
                id=str(number),
                env="",
                task=task,
                group=task,
                total_reward=reward,
                success=reward > 0,
                nodes=nodes,
                steps=steps,
            )
        )
    return played


def branched(played: list[Trajectory]) -> list[Trajectory]:
    """The same episodes, but that the second of each group left the first after a turn, and the third after two."""
    for number in range(0, len(played), len(GROUPS[0])):
        parent = played[number]
        for turns, child in enumerate(played[number + 1 : number + 3], 1):
            end = parent.steps[turns - 1].completion + 1
            child.nodes[1:end] = parent.nodes[1:end]
            child.branch_of = parent.id, turns
    return played


def table() -> Tensor:
    """[12, places, V]: turns begin undecided and end sure, as those of agents do."""
    g = torch.Generator().manual_seed(0)
    places = 1 + TURNS * (TOKENS + 1)
    sharpness = 0.6 + 3.5 * (torch.arange(places) % (TOKENS + 1)) / TOKENS
    return torch.randn(sum(map(len, GROUPS)), places, VOCABULARY, generator=g) * sharpness[None, :, None]


def furnish(algorithm: Algorithm, played: list[Trajectory]) -> None:
    """What a run would have given: a demonstration of each task, and a way from skills to tokens."""
    for replay in algorithm.parts.replays:
        if isinstance(replay, Switch):
            replay.demonstrations.known.update({key_of(each): each for each in played if each.success})
    for provider in algorithm.parts.providers:
        if isinstance(provider, SkillTeacher):
            provider.encode, provider.longest = lambda text: ADVICE, 100


def push(*overrides: str) -> tuple[Tensor, Tensor]:
    """By how much a step makes each token likelier [12, T], and which tokens were sampled."""
    base = 'name: x\ntasks: {train: "none:train", max_turns: 3}\nagent: {max_tokens: 5}\nlearner: {epochs: 2}\n'
    recipe, logits = parse_recipe(base, overrides), table()
    algorithm, longer = build_algorithm(recipe), torch.nn.functional.pad(logits, (0, 0, 0, len(ADVICE)))
    model, g = Table(longer), torch.Generator().manual_seed(2)
    moved = torch.nn.functional.pad(0.25 * torch.randn(logits.shape, generator=g), (0, 0, 0, len(ADVICE)))
    reference = Table(longer + torch.randn(longer.shape, generator=g)) if "ref_logprob" in algorithm.requires else None
    learner = Learner(model, algorithm, config=recipe.learner, optimiser=recipe.optimiser, reference=reference)
    parameter, found = model.base_model.logits, []

    def step(lr: float) -> float:
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        with torch.no_grad():
            parameter.add_(moved if len(found) % 2 else -moved)
        learner.optimiser.clear()
        return 0.0

    learner.optimiser.step = step  # type: ignore[method-assign]
    played = episodes(logits)
    furnish(algorithm, played)
    batch = build_rows(played if learner.algorithm.parts.planner is None else branched(played)).batch
    for iteration in range(2):  # histories begin in the first
        learner.update(batch, Moment(iteration, 10))
    taken = torch.zeros(batch.shape)
    gradient = found[-1][:, : batch.shape[1] - 1].gather(2, batch.ids[:, 1:, None])[..., 0]
    taken[:, 1:] = -gradient
    return torch.where(batch.mask, taken, 0.0), batch.mask


def draw(title: str, columns: dict[str, Tensor], mask: Tensor) -> str:
    """Episodes as lines of tokens, once for each method; blue becomes likelier, orange less likely."""
    largest = float(columns["grpo"].abs().max())
    width = mask.sum(1).max().item() * CELL + (TURNS - 1) * GAP
    drawn: list[Markup] = []
    for number, (name, values) in enumerate(columns.items()):
        left = LEFT + number * (width + LABEL)
        drawn.append(tag("text", name, x=left, y=TOP - 12, class_="name"))
        for row in range(len(mask)):
            y = TOP + row * CELL + row // len(GROUPS[0]) * GAP * 2
            if number == 0:
                reward = GROUPS[row // 4][row % 4]
                drawn.append(tag("text", f"return {reward:g}", x=LEFT - 8, y=y + CELL - 4, class_="row"))
            for token, place in enumerate(mask[row].nonzero()[:, 0].tolist()):
                x = left + token * CELL + token // TOKENS * GAP
                strength = max(-1.0, min(1.0, float(values[row, place]) / largest))
                size = CELL - 2
                drawn.append(tag("rect", x=x, y=y, width=size, height=size, fill=_colour(strength)))
    total = LEFT + len(columns) * (width + LABEL), TOP + len(mask) * CELL + 2 * GAP * len(GROUPS) + 8
    style = (
        "text{font:12px system-ui,sans-serif;fill:#444}.row{font-size:10px;text-anchor:end}.name{font-weight:600}"
        "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
    )
    body = tag(
        "svg",
        tag("title", title),
        tag("style", style),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {total[0]:g} {total[1]:g}",
        width=f"{total[0]:g}",
        role="img",
    )
    return render(body) + "\n"


def _colour(strength: float) -> str:
    """White to blue for a push upwards, to orange for one downwards; the root shows small ones."""
    red, green, blue = (31, 119, 180) if strength > 0 else (230, 97, 1)
    share = abs(strength) ** 0.5
    mixed = (round(240 + (c - 240) * share) for c in (red, green, blue))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def main() -> None:
    """Draw all of them, or those that are named."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    grpo, mask = push("algorithm.name=grpo")
    for name in sys.argv[1:] or [name for name in [*ALGORITHMS, *PLUGINS] if name != "grpo"]:
        use = f"algorithm.name={name}" if name in ALGORITHMS else f"algorithm.plugins=[{name}]"
        base = [] if name in ALGORITHMS else ["algorithm.name=grpo"]
        values, _ = push(*base, use, *SHOWN.get(name, []))
        title = f"How one update pushes each token, under GRPO and with {name}"
        (FOLDER / f"{name}.svg").write_text(
            draw(title, {"grpo": grpo, name: values, "difference": values - grpo}, mask), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
