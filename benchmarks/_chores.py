"""A short game with a slow, and where wanted a faulty, environment, and a random tiny model that is trained on it."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.agents.models import SHIPPED, load_model
from palaestra.config import Recipe, parse_recipe
from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.registry import register
from palaestra.envs.tasks import Task, TaskSuite, register_suite
from palaestra.errors import EnvError

COMMANDS = ["look", "take mug", "go to desk", "open drawer"]
"""The first is right."""
ENV = "benchmark/Chores-v0"


class Weather:
    """What the environments of this process suffer."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = random.Random(seed)
        self.latency: tuple[float, float] | None = None
        """(mu, sigma) of the lognormal seconds of a step; `None` for none."""
        self.turns = 2
        self.crashes = self.hangs = 0.0
        """Probability that a step ends the environment, or never ends."""
        self.crashed = self.hung = 0
        """How often that was."""

    async def blow(self) -> None:
        """One step's worth of it."""
        if self.latency is not None:
            await asyncio.sleep(self.draw.lognormvariate(*self.latency))
        if self.draw.random() < self.crashes:
            self.crashed += 1
            raise EnvError("the environment's worker was killed")
        if self.draw.random() < self.hangs:
            self.hung += 1
            await asyncio.Event().wait()


WEATHER = Weather()


class Chores(Env[str, str]):
    """A fixed number of turns; success is the right command in most of them."""

    def __init__(self) -> None:
        self.turn = self.right = 0

    def info(self) -> Info:
        return {"admissible_commands": COMMANDS, "success": self.right > WEATHER.turns / 2}

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.turn = self.right = 0
        return Reset(f"You see desk {seed}.", self.info())

    async def step(self, action: str) -> Step[str]:
        await WEATHER.blow()
        self.turn += 1
        self.right += action == COMMANDS[0]
        reward = float(action == COMMANDS[0]) / WEATHER.turns
        return Step(f"You did {action}.", reward, self.turn >= WEATHER.turns, False, self.info())


def prepare(folder: Path) -> Path:
    """Make environment and suite known, and a random tiny model in `folder`/base; returns `folder`."""
    register(ENV, Chores, override=True)
    register_suite(
        "chores",
        lambda split, level=None: TaskSuite(
            "chores", split, 64, lambda place: Task(env=ENV, name=f"{split}-{place}", split=split, seed=place)
        ),
    )
    base = folder / "base"
    if not base.exists():
        tokenizer = load_model(next(iter(SHIPPED))).tokenizer
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                eos_token_id=tokenizer.eos_token_id,
            )
        ).save_pretrained(base)
        tokenizer.save_pretrained(base)
    return folder


def chores_recipe(folder: Path, name: str, *overrides: str) -> Recipe:
    """Trains that model into `folder/name`, without evaluations."""
    text = f"""
        name: {name}
        out: {folder / name}
        tasks: {{train: "chores:train", max_turns: 16}}
        model: {{reference: {folder / "base"}, threads: 1}}
        agent: {{action: choice, max_tokens: 8}}
        algorithm: {{name: grpo}}
        rollout: {{groups: 4, group_size: 4}}
        optimiser: {{lr: 1e-2}}
        evaluation: {{every: 0, test_episodes: 0}}
    """
    return parse_recipe(text, overrides)


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
