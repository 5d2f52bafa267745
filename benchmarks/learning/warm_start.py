"""Make the base model of the study's second environment: play of BabyAI's bot, good and bad, cloned from scratch.

    python -m benchmarks.learning.warm_start runs/learning/base/goto

takes a minute and a half on one core. Like palaestra-tiny it is a mixture: some of the play that it learns from is the
bot's, some has random commands in it, and nothing tells which. Only training games are played. With the same torch on
the same kind of processor the weights are the same to the bit; `HASH` is that of the weights that the committed study
began with. Others are said aloud, as runs from different starts must not be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from palaestra.agents.chat import ChatFormat
from palaestra.envs.babyai.env import BabyAIEnv
from palaestra.envs.babyai.words import COMMANDS
from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.training.cloning import CloningBatch, WeightedRow, cloning_batches, cloning_loss
from palaestra.training.forward import PolicyModel
from palaestra.training.fresh import build_model, train_tokenizer, young_optimisers

SUITE = "babyai/GoToObj:train"
HASH = "89b803c97b9f9b1cb5a8e0a28d60698cfe4178273536fad6d30e568a7639008d"
GAMES = slice(50_000, 54_000)
"""Tasks that are played; the study's training draws from the whole split."""
MAX_TURNS = 10
EXPERT, NOISY = 0.35, 0.4
"""Shares of episodes by the bot alone, and by the bot with random commands in between; the rest is random play."""
EPOCHS = 2
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
TOKENS = 3072
"""Padded tokens of a batch."""
LR = 4e-3
OBSERVATION_WEIGHT = 0.1
PATTERN = (  # a place in the view, a colour, a kind of thing, a command
    r"turn left|turn right|go forward|pick up|You see an?|You carry an?|Your task is to"
    r"|, an?| next to the| and [0-9]+ steps? (?:left|right)| [0-9]+ steps? (?:forward|left|right)|\n+| ?[A-Za-z]+|."
)

Episode = list[tuple[str, str]]
"""Observations and the commands that answered them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="model directory")
    make_base(parser.parse_args().out)


def make_base(out: Path) -> None:
    """Play, learn and save; say so if the weights are not those of the committed study."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    plays = asyncio.run(collect(load_suite(SUITE)[GAMES]))
    print(f"{len(plays)} games played, {sum(map(len, plays))} commands")
    tokenizer = train_tokenizer((text for play in plays for pair in play for text in pair), 1024, PATTERN)
    model = build_model(len(tokenizer), width=96, layers=4, heads=3)
    policy, optims = PolicyModel(model, autocast=torch.bfloat16), young_optimisers(model, LR)
    chat = ChatFormat.from_tokenizer(tokenizer)
    total = EPOCHS * sum(1 for _ in cloning_batches(encode(plays, chat, 0), tokens=TOKENS))
    for step, batch in enumerate(batches(plays, chat)):
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = LR * min(1.0, (step + 1) / 50) * max(0.0, 1 - step / total)
        loss = cloning_loss(policy, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        if step % 50 == 0:
            print(f"step {step} of about {total}: {float(loss.detach()):.3f}", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    if weights_hash(out) != HASH:
        print("these are not the weights that the committed results began with: compare nothing with them")


def batches(plays: list[Episode], chat: ChatFormat) -> Iterator[CloningBatch]:
    """All epochs, one after the other."""
    for epoch in range(EPOCHS):
        yield from cloning_batches(encode(plays, chat, epoch), tokens=TOKENS, seed=epoch)


def weights_hash(model: Path) -> str:
    """SHA-256 of a model directory's weights."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


async def collect(suite: TaskSuite) -> list[Episode]:
    """One episode a task, by a player whose share of random commands is drawn anew."""
    rng, plays = random.Random("pickup"), []
    env = BabyAIEnv()
    for task in suite:
        draw = rng.random()
        noise = 0.0 if draw < EXPERT else rng.uniform(0.1, 0.8) if draw < EXPERT + NOISY else 1.0
        observation = (await env.reset(seed=task.seed, task=task)).observation
        play: Episode = []
        for _ in range(MAX_TURNS):
            command = rng.choice(list(COMMANDS)) if rng.random() < noise else await env.oracle()
            play.append((observation, command))
            step = await env.step(command)
            observation = step.observation
            if step.terminated:
                break
        plays.append(play)
    await env.close()
    return plays


def encode(plays: list[Episode], chat: ChatFormat, epoch: int) -> list[WeightedRow]:
    """Every episode as one row; in each epoch the colours are others, as nothing depends on which they are."""
    rng = random.Random(f"colours/{epoch}")
    return [_row(play, chat, dict(zip(COLOURS, rng.sample(COLOURS, len(COLOURS)), strict=True))) for play in plays]


def _row(play: Episode, chat: ChatFormat, colours: dict[str, str]) -> WeightedRow:
    ids: list[int] = chat.system(None)
    weights = [0.0] * len(ids)
    for number, (observation, command) in enumerate(play):
        shown = re.sub("|".join(COLOURS), lambda match: colours[match[0]], observation)
        said = chat.completion(command)
        close = chat.close_completion(said) if number + 1 < len(play) else []
        for part, weight in ((chat.user(shown), OBSERVATION_WEIGHT), (chat.generation, 0.0), (said, 1.0), (close, 0.0)):
            ids.extend(part)
            weights.extend([weight] * len(part))
    return WeightedRow(ids, weights)


if __name__ == "__main__":
    main()
