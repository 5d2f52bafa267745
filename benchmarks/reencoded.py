"""Tokens that are encoded again in an episode of 64 turns: ours over rendering and encoding the chat anew each turn.

A shift of household tasks, one after the other, played by a real model on the embedded engine, with full history. Every
call of the real tokenizer is counted while it plays. Of what a turn encodes, only its own observation is new; all else
was encoded, or sampled, before. The baseline is what most agent loops do: the same conversation as messages, through
transformers' `apply_chat_template` with `tokenize=True`, before each turn. It also reads other tokens than were sampled
wherever decoding and encoding do not agree: `changed_turns` counts prompts in which that happened (none with
palaestra-tiny, whose tokens are words; give `--model` one with sub-words).

    python benchmarks/reencoded.py [--turns 64] [--episodes 8] [--window N] [--model palaestra-tiny]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _harness import conclude

from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import FullContext, WindowContext
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.language import LanguageAgent, TokenLimits
from palaestra.agents.models import LoadedModel, load_model
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task, TaskSuite, load_suite
from palaestra.envs.wrappers import Wrapper
from palaestra.trajectories.record import Trajectory


class CountingTokenizer:
    """A tokenizer that counts what it encodes, and how long that takes."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.encoded: list[tuple[str, int]] = []
        """Text and number of tokens of each call."""
        self.cpu = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, text: str, **options: Any) -> list[int]:
        began = time.process_time()
        ids: list[int] = self.inner.encode(text, **options)
        self.cpu += time.process_time() - began
        self.encoded.append((text, len(ids)))
        return ids

    def render(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The whole chat, encoded."""
        began = time.process_time()
        ids: list[int] = self.inner.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        self.cpu += time.process_time() - began
        return ids


class Shift(Wrapper):
    """One task after the other: what would end the episode begins the next task instead."""

    def __init__(self, env: Env[Any, Any], suite: TaskSuite) -> None:
        super().__init__(env)
        self.suite, self.number = suite, 0

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[Any]:
        self.number = task.seed or 0 if task else 0
        return await self.env.reset(seed=seed, task=task, options=options)

    async def step(self, action: Any) -> Step[Any]:
        step = await self.env.step(action)
        if not (step.terminated or step.truncated):
            return step
        self.number += 1
        following = self.suite[self.number % len(self.suite)]
        begun = await self.env.reset(seed=following.seed, task=following)
        return Step(f"{step.observation}\n{begun.observation}", step.reward, False, False, begun.info)


@dataclass
class Count:
    """Of one trajectory."""

    encoded: int
    """Tokens that calls of the tokenizer gave."""
    again: int
    """Of them, those of text that was encoded or sampled before."""
    cpu: float
    """Seconds in the tokenizer."""


async def played(
    loaded: LoadedModel, tokenizer: CountingTokenizer, args: argparse.Namespace, number: int
) -> Trajectory:
    """One episode with our agent; `tokenizer` counts."""
    suite = load_suite(args.suite)
    chat = ChatFormat.from_tokenizer(tokenizer)
    tokenizer.encoded.clear()
    tokenizer.cpu = 0.0
    agent = LanguageAgent(
        engine=TorchEngine(loaded.model, slots=1),
        chat=chat,
        context=WindowContext(args.window) if args.window else FullContext(),
        limits=TokenLimits(max_tokens=args.max_tokens),
    )
    try:
        limits = RolloutLimits(max_turns=args.turns, retries=0)
        episode = Episode(task=suite[number], id=f"{number}", seed=number)
        (trajectory,) = await rollout([episode], agent, lambda id: Shift(make(id), suite), limits)
    finally:
        await agent.engine.close()
    assert len(trajectory.steps) == args.turns, f"{trajectory.status}: {trajectory.error}"
    return trajectory


def ours(tokenizer: CountingTokenizer, trajectory: Trajectory) -> Count:
    """What our agent had encoded while it played; each observation may come once."""
    new = [step.observation for step in trajectory.steps]
    again = 0
    for text, count in tokenizer.encoded:
        if text in new:
            new.remove(text)
        else:
            again += count
    return Count(sum(count for _, count in tokenizer.encoded), again, tokenizer.cpu)


def rendered(inner: Any, trajectory: Trajectory, args: argparse.Namespace) -> tuple[Count, int]:
    """What rendering anew encodes for the same conversation, and how many prompts differ from what the model read."""
    tokenizer, messages = CountingTokenizer(inner), list[dict[str, str]]()
    encoded = again = changed = 0
    for turn, step in enumerate(trajectory.steps):
        messages.append({"role": "user", "content": step.observation})
        sent = messages if not args.window else [*messages[:1], *messages[1:][-2 * args.window + 1 :]]
        ids = tokenizer.render(sent)
        read = [i for node in trajectory.prompt_of(turn) for i in trajectory.nodes[node].ids]
        own = len(inner.encode(step.observation, add_special_tokens=False))
        encoded, again, changed = encoded + len(ids), again + len(ids) - own, changed + (ids != read)
        said = inner.decode(trajectory.nodes[step.completion].ids, skip_special_tokens=True)
        messages.append({"role": "assistant", "content": said})
    return Count(encoded, again, tokenizer.cpu), changed


def mean(counts: Sequence[Count]) -> dict[str, float]:
    return {
        "encoded_tokens": statistics.fmean(c.encoded for c in counts),
        "reencoded_tokens": statistics.fmean(c.again for c in counts),
        "tokenizer_cpu_ms": 1000 * statistics.median(c.cpu for c in counts),
    }


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="alfworld/small:train")
    parser.add_argument("--turns", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=12)
    parser.add_argument("--model", default="palaestra-tiny", help="or a model directory or GGUF file")
    parser.add_argument("--window", type=int, default=0, help="turns of a window over the context; 0 for full history")
    args = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(args.model)
    our_counts, their_counts, changed, sampled = [], [], 0, 0
    for number in range(args.episodes):
        tokenizer = CountingTokenizer(loaded.tokenizer)
        trajectory = asyncio.run(played(loaded, tokenizer, args, number))
        our_counts.append(ours(tokenizer, trajectory))
        count, differs = rendered(loaded.tokenizer, trajectory, args)
        their_counts.append(count)
        changed += differs
        sampled += trajectory.sampled_tokens
    mine, theirs = mean(our_counts), mean(their_counts)
    figures = {
        "model": loaded.name,
        "turns": args.turns,
        "episodes": args.episodes,
        "sampled_tokens": sampled / args.episodes,
        "ours": mine,
        "apply_chat_template": {**theirs, "changed_turns": changed / args.episodes},
        "tokenizer_cpu_ratio": mine["tokenizer_cpu_ms"] / theirs["tokenizer_cpu_ms"],
    }
    ratio = mine["reencoded_tokens"] / theirs["reencoded_tokens"]
    return conclude("reencoded", ratio, 0.0, at_most=True, **figures)


if __name__ == "__main__":
    raise SystemExit(not main())
