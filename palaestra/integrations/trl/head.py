"""Log-probs and entropies of our rows by TRL's own forward pass, for models that only it can call (PEFT's, for one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palaestra.errors import ConfigError
from palaestra.training.batch import Batch
from palaestra.training.forward import Flat, MicroBatch, PolicyModel, Scores
from palaestra.training.seams import Statistic


class TrlPolicy(PolicyModel):
    """A policy that is read through `GRPOTrainer._get_per_token_logps_and_entropies`."""

    def __init__(self, trainer: Any, policy: Any, model: Any) -> None:
        """Read `policy` through the trainer.

        Args:
            trainer: the GRPOTrainer; its temperature is the one of the log-probs.
            policy: the language model.
            model: the same as the trainer calls it, which may be more.
        """
        super().__init__(policy)
        self.trainer, self.called = trainer, model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.trainer.accelerator.device
        return device

    def __call__(self, batch: Batch, flat: Flat, part: MicroBatch, statistics: Sequence[Statistic] = ()) -> Scores:
        """Of the micro-batch's policy tokens.

        Raises:
            ConfigError: completions were constrained to some tokens, which TRL's head does not know.
        """
        if batch.allowed is not None:
            raise ConfigError(
                "agent.action choice restricts what can be sampled, which TRL's head ignores: use "
                'head="palaestra", or agent.action: text'
            )
        ids = batch.ids[part.rows, : part.width + 1].to(self.device)
        columns = torch.arange(ids.shape[1], device=self.device)
        attention = (columns[None] < batch.length[part.rows].to(self.device)[:, None]).long()
        logprob, entropy, _ = self.trainer._get_per_token_logps_and_entropies(
            self.called, ids, attention, ids.shape[1] - 1, compute_entropy=True
        )
        where = _places(flat, part, self.device)
        return Scores(logprob[where], entropy[where], {})

    def hidden(self, ids: Tensor, **more: Any) -> Tensor:
        """Not to be had through TRL's head.

        Raises:
            ConfigError: always.
        """
        raise ConfigError('TRL\'s head gives no hidden states: use head="palaestra"')


def _places(flat: Flat, part: MicroBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each policy token in what predicts columns 1, 2, ... of the micro-batch."""
    counts = flat.offsets[part.rows + 1] - flat.offsets[part.rows]
    rows = torch.repeat_interleave(torch.arange(len(part.rows)), counts)
    return rows.to(device), (flat.column[part.tokens] - 1).to(device)
