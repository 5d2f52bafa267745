"""The critic: what a state is worth, on a trunk that begins as a copy of the policy's.

    V(s) = w . trunk(s) + b            w = b = 0 at first
    loss = coefficient * mean over decisions of max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)

`R` is the advantage (before it is whitened) plus `V_old`, the value at the beginning of the iteration. The critic takes
a step of its own AdamW in every optimiser step of the policy, on the same rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from palaestra.config import LearnerConfig, OptimiserConfig
from palaestra.errors import TrainingError
from palaestra.training.batch import Batch
from palaestra.training.branches import shared_advantage
from palaestra.training.checkpoint import load_weights
from palaestra.training.forward import Flat, MicroBatch, PolicyModel, micro_batches, part_rows
from palaestra.training.gae import Decisions, GaeAdvantage
from palaestra.training.optimiser import Optimiser, learning_rate
from palaestra.training.ranks import add_up, added_up, share
from palaestra.training.seams import Moment

Trunk = Literal["own", "frozen", "policy"]


@dataclass(frozen=True, slots=True)
class CriticPlan:
    """How a critic is made and learns; called with the policy, it makes one."""

    credit: GaeAdvantage
    """Its units, and how targets are estimated."""
    optimiser: OptimiserConfig
    trunk: Trunk = "own"
    clip_value: float = math.inf
    coefficient: float = 0.5

    def __call__(self, policy: PolicyModel, config: LearnerConfig) -> Critic:
        """A critic of the policy as it is now."""
        return Critic(policy, config, self)


class Critic:
    """Weights of values, and their optimiser."""

    def __init__(self, policy: PolicyModel, config: LearnerConfig, plan: CriticPlan) -> None:
        self.plan, self.budget, self.autocast = plan, config.micro_batch_tokens, policy.autocast
        trunk = policy.trunk if plan.trunk == "policy" else copy.deepcopy(policy.trunk)
        head = nn.Linear(policy.head.in_features, 1, device=policy.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.trunk, self.head = trunk, head
        own = {"head": head, "trunk": trunk} if plan.trunk == "own" else {"head": head}
        self.weights = nn.ModuleDict(own)
        self.optimiser = Optimiser(self.weights, plan.optimiser)

    def evaluate(self, batch: Batch) -> Batch:
        """The batch with `value` and `returns`, by the present weights."""
        decisions = Decisions.of(batch, self.plan.credit.unit)
        points = decisions.points(batch)
        flat = Flat.of(batch.with_(mask=points))
        values = torch.zeros(len(flat.row))
        with torch.no_grad():
            for part in micro_batches(flat, share(batch.rows), self.budget):
                values[part.tokens] = self.values(batch, flat, part).float().cpu()
        add_up([values])
        wide = torch.zeros(batch.shape)
        wide[points] = values
        at = wide[decisions.row, decisions.column]
        batch = batch.with_(value=decisions.on_tokens(at, batch))
        assert batch.value is not None
        returns = batch.value + shared_advantage(self.plan.credit, batch)
        log = _figures(at, returns[decisions.row, decisions.column])
        return batch.with_(returns=returns, notes={**batch.notes, **log})

    def learn(self, batch: Batch, rows: Tensor, moment: Moment) -> Mapping[str, float]:
        """One optimiser step on `rows` [b]; the same metrics each time.

        Raises:
            TrainingError: loss or gradient is not finite. No step was taken.
        """
        chosen = torch.zeros(len(batch.ids), dtype=torch.bool)
        chosen[rows] = True
        points = Decisions.of(batch, self.plan.credit.unit).points(batch) & chosen[:, None]
        flat, sums = Flat.of(batch.with_(mask=points)), {"value_loss": 0.0, "value_clip_fraction": 0.0}
        lr = learning_rate(self.plan.optimiser, moment.iteration, moment.total)
        if not len(flat.row):
            return {**sums, "value_grad_norm": 0.0, "value_lr": lr}
        for part in micro_batches(flat, share(rows), self.budget):
            loss, clipped = self._losses(batch, flat, part)
            (self.plan.coefficient * loss.sum() / len(flat.row)).backward()  # type: ignore[no-untyped-call]
            sums["value_loss"] += float(loss.detach().sum()) / len(flat.row)
            sums["value_clip_fraction"] += float(clipped.sum()) / len(flat.row)
        sums = added_up(sums)
        if not math.isfinite(sums["value_loss"]):
            raise TrainingError(f"the critic's loss is {sums['value_loss']}")
        self.optimiser.add_up_gradients()
        norm = self.optimiser.step(lr)
        if not math.isfinite(norm):
            raise TrainingError(f"the critic's gradient norm is {norm}")
        return {**sums, "value_grad_norm": norm, "value_lr": lr}

    def values(self, batch: Batch, flat: Flat, part: MicroBatch) -> Tensor:
        """[p] float32, of the states before the micro-batch's points."""
        before, device = flat.column[part.tokens] - 1, self.head.weight.device
        ids = batch.ids[part.rows, : part.width].to(device)
        learns = torch.set_grad_enabled(torch.is_grad_enabled() and self.plan.trunk == "own")
        with learns, torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            state: Tensor = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
        state = state[part_rows(flat, part).to(device), before.to(device)]
        weight, bias = self.head.weight.float(), self.head.bias.float()
        return (state.float() @ weight.T + bias)[:, 0]

    def clear(self) -> None:
        """Drop accumulated gradients."""
        self.optimiser.clear()

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser, as `weight.NAME` and `optimiser.NAME.KEY`; what never changes is not in it."""
        weights = {f"weight.{name}": value for name, value in self.weights.named_parameters()}
        return weights | {f"optimiser.{name}": value for name, value in self.optimiser.state_tensors().items()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CheckpointError: they are of another critic.
        """
        weights, moments = (
            {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            for prefix in ("weight.", "optimiser.")
        )
        load_weights(self.weights, weights, source="the checkpoint's critic")
        self.optimiser.load_state_tensors(moments)

    def _losses(self, batch: Batch, flat: Flat, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Of the micro-batch's points: [p] float64 with gradient, and which of them the clip decided."""
        assert batch.value is not None
        assert batch.returns is not None
        where = flat.row[part.tokens], flat.column[part.tokens]
        value = self.values(batch, flat, part).double()
        old, target = (column[where].to(value) for column in (batch.value, batch.returns))
        return value_loss(value, old, target, self.plan.clip_value)


def value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """`max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)` and where the second is larger, all [p]."""
    plain = (value - target).square()
    held = (torch.clamp(value, old - clip, old + clip) - target).square()
    clipped = (held > plain).detach()
    return torch.where(clipped, held, plain), clipped


def with_lam(credit: GaeAdvantage, lam: float | None) -> GaeAdvantage:
    """The same with another lambda, `None` for its own."""
    return credit if lam is None else replace(credit, lam=lam)


def _figures(value: Tensor, target: Tensor) -> dict[str, float | None]:
    """Of the decisions of an iteration, before its first step. Explained variance: 1 is perfect, 0 a constant."""
    value, target = value.double(), target.double()
    if not len(value):
        return {"value_mean": 0.0, "return_mean": 0.0, "explained_variance": None}
    spread = float(target.var(correction=0))
    left = float((target - value).var(correction=0))
    explained = 1.0 - left / spread if spread > 1e-12 else None
    return {"value_mean": float(value.mean()), "return_mean": float(target.mean()), "explained_variance": explained}
