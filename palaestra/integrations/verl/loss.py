"""Our algorithm's loss, for `set_loss_fn` of verl's training workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from palaestra.errors import TrainingError
from palaestra.integrations.verl.credit import PREFIX
from palaestra.training.seams import BoundTerm, Tokens


@dataclass(frozen=True)
class IterationLoss:
    """The terms of one iteration. Their weights are columns of the batch, so that micro-batches change nothing."""

    terms: tuple[BoundTerm, ...]

    def __call__(self, model_output: Any, data: Any, dp_group: Any = None) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's share of the loss, times the number of data-parallel ranks, whose gradients verl averages.

        Args:
            model_output: `log_probs` and `entropy`, nested, with gradient.
            data: verl's micro-batch: `prompts`, `responses`, and nested columns over the responses.
            dp_group: not needed.

        Raises:
            TrainingError: there is no entropy.
        """
        if model_output.get("entropy", None) is None:
            raise TrainingError("verl computes no entropies: set actor_rollout_ref.actor.calculate_entropy=true")
        logprob = no_padding_2_padding(model_output["log_probs"], data)
        entropy = no_padding_2_padding(model_output["entropy"], data)
        ranks = int(data["dp_size"])
        names = [name for name in data.keys() if name.startswith(PREFIX)]  # noqa: SIM118  a TensorDict is no dict
        wanted = ["response_mask", "old_log_probs", "rollout_log_probs", "advantages", "ref_log_prob", *names]
        columns = data.select(*(name for name in wanted if name in data)).to_padded_tensor()
        mask = columns["response_mask"].bool()
        tokens = _tokens(logprob[mask], entropy[mask], columns, mask)
        total = logprob.new_zeros((), dtype=torch.float64)
        metrics: dict[str, Any] = {}
        for term in self.terms:
            weight = columns[f"{PREFIX}weight_{term.name}"][mask].to(logprob.device)
            value = (term.value(tokens).value.double() * weight).sum()
            metrics[f"palaestra/{term.name}"] = Metric(
                value=float(value.detach()) / term.coefficient, aggregation=AggregationType.SUM
            )
            total = total + value
        return (total * ranks).float(), metrics


def _tokens(logprob: Tensor, entropy: Tensor, columns: Any, mask: Tensor) -> Tokens:
    def column(name: str) -> Tensor | None:
        return columns[name][mask].to(logprob.device) if name in columns else None

    def needed(name: str) -> Tensor:
        found = column(name)
        assert found is not None, name
        return found

    unclipped, old = column(f"{PREFIX}unclipped"), needed("old_log_probs")
    sampled = column("rollout_log_probs")
    start = f"{PREFIX}mark_"
    marks = [name.removeprefix(start) for name in columns.keys() if name.startswith(start)]  # noqa: SIM118
    return Tokens(
        logprob=logprob,
        entropy=entropy,
        old_logprob=old,
        rollout_logprob=old if sampled is None else sampled,
        advantage=needed("advantages"),
        step_id=needed(f"{PREFIX}turn").long() - 1,
        ref_logprob=column("ref_log_prob"),
        row=mask.nonzero()[:, 0],
        weight=column(f"{PREFIX}gate"),
        unclipped=None if unclipped is None else unclipped.bool(),
        marks={name: needed(start + name) for name in marks},
    )
