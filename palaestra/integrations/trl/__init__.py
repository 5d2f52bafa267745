"""Palaestra's environments, agents and algorithms inside TRL's GRPOTrainer (TRL 1.16)."""

from palaestra.integrations.trl.arguments import grpo_config
from palaestra.integrations.trl.environment import environment_factory
from palaestra.integrations.trl.trainer import PalaestraTrainer

__all__ = ["PalaestraTrainer", "environment_factory", "grpo_config"]
