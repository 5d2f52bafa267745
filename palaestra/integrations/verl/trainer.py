"""verl's synchronous PPO trainer with our credit and our loss: `trainer.v1.trainer_mode=palaestra`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_to_nested

from palaestra.config import Recipe
from palaestra.errors import ConfigError
from palaestra.integrations.objective import load_memory, save_memory
from palaestra.integrations.verl.credit import Credit, credit, trajectory_messages
from palaestra.integrations.verl.loss import IterationLoss
from palaestra.integrations.verl.recipe import algorithm_of, recipe_of
from palaestra.training.algorithm import Algorithm
from palaestra.training.seams import Moment


@register_trainer("palaestra")
class PalaestraPPOTrainer(PPOTrainerSync):  # type: ignore[misc]  # verl is installed in its own environment only
    """Every iteration: advantages and weights into verl's batch, the bound terms to its workers."""

    _ours: tuple[Recipe, Algorithm] | None = None
    _last: Credit | None = None

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's own columns (rewards, returns, corrections), then our advantages over its."""
        batch = super()._compute_advantage(batch, metrics)
        recipe, algorithm = self._algorithm()
        fields = ["response_mask", "old_log_probs", "entropy", "extra_fields"]
        fields += ["ref_log_prob"] if "ref_logprob" in algorithm.requires else []
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        messages = trajectory_messages(list(data["extra_fields"]))
        padded = data.select(*(name for name in fields if name != "extra_fields")).to_padded_tensor()
        moment = Moment(int(self.global_steps) - 1, int(self.total_training_steps), recipe.seed)
        temperature = float(self.config.actor_rollout_ref.rollout.temperature)
        found = credit(algorithm, messages, dict(padded.items()), moment, temperature=temperature)
        columns = {name: response_to_nested(value, data["response_mask"]) for name, value in found.columns.items()}
        batch = tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(columns, batch_size=len(batch))
        )
        self.actor_rollout_wg.set_loss_fn(IterationLoss(found.terms))
        metrics.update({f"palaestra/{name}": value for name, value in found.batch.notes.items() if value is not None})
        self._last = found
        return batch

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """One optimiser step; then the algorithm's memory moves."""
        batch = super()._update_actor(batch, metrics)
        if self._last is not None:
            self._algorithm()[1].observe(self._last.batch, self._last.moment)
            self._last = None
        return batch

    def _save_checkpoint(self) -> None:
        save_memory(self._algorithm()[1], self._folder())  # before verl's, which names the checkpoint the latest
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            trainer = self.config.trainer
            named = Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else self._folder()
            load_memory(self._algorithm()[1], named)

    def _folder(self) -> Path:
        """verl's, of the present step's checkpoint."""
        return Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"

    def _algorithm(self) -> tuple[Recipe, Algorithm]:
        if self._ours is None:
            recipe = recipe_of(self.config)
            check_config(self.config)
            self._ours = recipe, algorithm_of(recipe)
        return self._ours


def check_config(config: Any) -> None:
    """Refuse what would change the algorithm unnoticed.

    Raises:
        ConfigError: naming the key.
    """
    actor = config.actor_rollout_ref.actor
    if int(actor.ppo_mini_batch_size) != int(config.data.train_batch_size) or int(actor.ppo_epochs) != 1:
        raise ConfigError(
            "weights are those of one optimiser step an iteration: set actor_rollout_ref.actor.ppo_mini_batch_size to "
            "data.train_batch_size, and ppo_epochs to 1"
        )
    if not actor.get("calculate_entropy", False):
        raise ConfigError("our terms read entropies: set actor_rollout_ref.actor.calculate_entropy=true")
