"""A short text game, a random tiny language model and a recipe: what tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.tokens import tiny
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.config import Recipe, parse_recipe
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite

LEVERS = ["take key 2", "go to desk 1", "go to desk 10", "look"]
"""The first is right, whatever the task."""
ENV = "test/Levers-v0"


class Levers(Env[str, str]):
    """Two turns; each right command is worth a half. Success is both."""

    def __init__(self) -> None:
        self.turn, self.right = 0, 0

    def info(self, action: str | None = None) -> Info:
        info: Info = {"admissible_commands": LEVERS, "task_type": "levers", "success": self.right == 2}
        return info if action is None else {**info, "invalid": action not in LEVERS}

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.turn = self.right = 0
        return Reset(f"You see desk {seed}.", self.info())

    async def step(self, action: str) -> Step[str]:
        self.turn += 1
        reward = 0.5 * (action == LEVERS[0])
        self.right += action == LEVERS[0]
        return Step(f"you did {action}.", reward, self.turn == 2, False, self.info(action))

    async def oracle(self) -> str:
        return LEVERS[0]


def register_levers() -> None:
    """Make `ENV` and the suite `levers:SPLIT` known."""
    register(ENV, Levers, override=True)

    def load(split: str, level: str | None = None) -> TaskSuite:
        size = 12 if split == "train" else 5
        return TaskSuite(
            "levers", split, size, lambda i: Task(env=ENV, name=f"{split}-{i}", split=split, seed=i, kind="levers")
        )

    register_suite("levers", load)


def tiny_model(seed: int = 0, *, width: int = 16) -> LlamaForCausalLM:
    """A random Llama of about ten thousand parameters over the test tokenizer's vocabulary."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tiny()),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                pad_token_id=0,
                bos_token_id=None,
                eos_token_id=tiny().eos_token_id,
            )
        ).eval()


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A model directory of it."""
    tiny_model(seed).save_pretrained(folder)
    tiny().save_pretrained(folder)
    return folder


def levers_recipe(folder: Path, *overrides: str) -> Recipe:
    """Trains the model in `folder/base` for a few seconds, into `folder/run`."""
    text = f"""
        name: levers
        out: {folder / "run"}
        tasks: {{train: "levers:train", validation: "levers:validation", test: "levers:test", max_turns: 4}}
        model: {{reference: {folder / "base"}, threads: 1}}
        agent: {{action: choice, max_tokens: 8}}
        rollout: {{groups: 3, group_size: 4}}
        optimiser: {{lr: 1e-2}}
        budget: {{iterations: 6}}
        evaluation: {{every: 3, episodes: 5, test_episodes: 5, temperature: 0}}
        checkpoint: {{every: 2}}
    """
    return parse_recipe(text, overrides)
