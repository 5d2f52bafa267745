"""Trained tokens per second, end to end, of `palaestra train` over TRL's GRPOTrainer, on a CPU.

The same model (a random Llama of 3 M parameters), prompts, limits, group size and algorithm (GRPO, one step an
iteration); both sample with the model that they train, and both count the tokens that the policy sampled. With so
random a model nearly every completion is as long as it may be. Groups are of 8, TRL's default and what every recipe of
ours has; the first prompt has 120 words, about as many as a household task has SmolLM2's tokens. Each measurement is a
process of its own, TRL's in TRL's environment; they take turns. The first two iterations do not count. TRL runs with
its default micro-batch of 8 episodes and with all in one, and the ratios are to the faster of the two. Ours reads the
prompt of a group once, and few tokens at a time (`learner.merge_prefixes=always`, `learner.micro_batch_tokens=320`):
they take less memory, and what is computed from them stays in the processor's cache.

TRL plays one turn as GRPOTrainer does by itself. It plays eight by a `rollout_func` that generates turn by turn through
the trainer's own generation, as its loop of tool calls does, with `env_mask` on what the environment writes.

    palaestra interpreters --build trl
    python benchmarks/train_vs_trl.py [--rounds 3] [--iterations 6] [--asked 24 --members 4]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from _harness import conclude, status_bytes

BARS = {1: 1.5, 8: 3.0}
"""Least ratio of tokens per second, by turns."""
MEMORY_BAR = 0.7
EPISODES, WRITTEN, READ, WARM_UP = 32, 32, 24, 2
"""Episodes of an iteration, most tokens of a completion, words of an observation, iterations that do not count."""
TOGETHER = 320
"""Tokens that our update reads at a time, or one row that is longer."""
WORDS = (
    *("the", "a", "go", "take", "put", "open", "close", "look", "desk", "lamp", "key", "box", "shelf", "drawer"),
    *("pen", "book", "cup", "on", "in", "to", "from", "with", "under", "and"),
)


class Work(NamedTuple):
    """What is trained on."""

    turns: int
    iterations: int
    asked: int
    """Words of the first prompt."""
    members: int
    """Episodes of a group."""


def told(seed: int, turn: int, words: int = READ) -> str:
    """What the environment writes."""
    return " ".join(WORDS[(seed * 7 + turn * 5 + place * place) % len(WORDS)] for place in range(words))


def paid(text: str) -> float:
    """A reward that tells the members of a group apart."""
    return zlib.crc32(text.encode()) % 97 / 97


class Clock:
    """Marks the ends of iterations."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, int]] = []

    def mark(self, tokens: int) -> None:
        """An iteration has ended that trained so many tokens."""
        self.marks.append((time.perf_counter(), time.process_time(), tokens))

    def result(self) -> dict[str, float]:
        """Of what came after the first iterations."""
        start, end = self.marks[WARM_UP - 1], self.marks[-1]
        tokens = sum(mark[2] for mark in self.marks[WARM_UP:])
        wall, cpu = end[0] - start[0], end[1] - start[1]
        return {
            "tokens_per_second": tokens / wall,
            "tokens_per_cpu_second": tokens / cpu,
            "tokens_per_iteration": tokens / (len(self.marks) - WARM_UP),
            "bytes": status_bytes("VmHWM"),
        }


def make_model(folder: Path) -> None:
    """What both train."""
    import torch

    from palaestra.training.fresh import build_model, train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([told(seed, turn) for seed in range(50) for turn in range(8)], 512)
    build_model(len(tokenizer), width=256, layers=4).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ours(folder: Path, work: Work) -> dict[str, float]:
    """`palaestra train` with a recipe."""
    from palaestra import Env, Reset, Step, register
    from palaestra.config import parse_recipe
    from palaestra.envs.tasks import Task, TaskSuite, register_suite
    from palaestra.training.run import train

    class Talk(Env[str, str]):
        async def reset(self, *, seed: Any = None, task: Any = None, options: Any = None) -> Reset:
            self.seed, self.turn, self.said = seed, 0, ""
            return Reset(told(seed, 0, work.asked), {"success": False})

        async def step(self, action: str) -> Step:
            self.turn, self.said = self.turn + 1, self.said + action
            over = self.turn == work.turns
            return Step(told(self.seed, self.turn), paid(self.said) if over else 0.0, over, False, {"success": over})

    register("bench/Talk-v0", Talk)

    def loader(split: str, level: str | None, **params: Any) -> TaskSuite:
        return TaskSuite("talk", split, 512, lambda at: Task(env="bench/Talk-v0", name=f"{at}", split=split, seed=at))

    register_suite("talk", loader)
    recipe = parse_recipe(
        f"""
        name: talk
        tasks: {{train: "talk:train", max_turns: {work.turns}}}
        model: {{reference: "{folder}", threads: 1}}
        agent: {{max_tokens: {WRITTEN}}}
        rollout: {{groups: {EPISODES // work.members}, group_size: {work.members}}}
        algorithm: {{name: grpo}}
        learner: {{micro_batch_tokens: {TOGETHER}, merge_prefixes: always}}
        optimiser: {{lr: 1.0e-6}}
        budget: {{iterations: {work.iterations}}}
        evaluation: {{every: 0, test_episodes: 0}}
        checkpoint: {{every: 1000}}
        out: {folder / f"run-{os.getpid()}"}
        """
    )
    clock = Clock()
    train(recipe, progress=lambda row: clock.mark(row["tokens_generated"]) if row["kind"] == "train" else None)
    return clock.result()


def trl(folder: Path, work: Work, micro_batch: int = 8) -> dict[str, float]:
    """GRPOTrainer, by default with its default of 8 episodes in a micro-batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.utils import logging
    from trl import GRPOConfig, GRPOTrainer

    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    clock = Clock()
    trained = [0]

    def reward(completions: list[Any], said: Any = None, **_: Any) -> list[float]:
        texts = said or [each[-1]["content"] if isinstance(each, list) else each for each in completions]
        return [paid(text) for text in texts]

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """All episodes, turn by turn."""
        start = [list(ids) for ids in trainer._tokenize_prompts(prompts)[0]]
        rows: list[list[int]] = [[] for _ in prompts]
        masks: list[list[int]] = [[] for _ in prompts]
        for turn in range(work.turns):
            asked = [ids + row for ids, row in zip(start, rows, strict=True)]
            completions, _ = trainer._generate_single_turn(asked, None, {}, 1)
            for row, mask, ids in zip(rows, masks, completions, strict=True):
                row += ids
                mask += [1] * len(ids)
            if turn + 1 < work.turns:
                for place, (row, mask) in enumerate(zip(rows, masks, strict=True)):
                    written = f"<|end|><|user|>{told(place // work.members, turn + 1)}<|assistant|>"
                    observed = tokenizer(written, add_special_tokens=False)["input_ids"]
                    row += observed
                    mask += [0] * len(observed)
        said = ["".join(tokenizer.batch_decode([row])) for row in rows]
        logprobs = [[0.0] * len(row) for row in rows]
        return {"prompt_ids": start, "completion_ids": rows, "env_mask": masks, "logprobs": logprobs, "said": said}

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.mark(trained[0])

    class Counting(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            mask = output["completion_mask"] * output.get("tool_mask", 1)
            trained[0] = int(mask.sum())  # once an iteration, which has one optimiser step
            return output

    args = GRPOConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=EPISODES // micro_batch,
        num_generations=work.members,
        max_completion_length=WRITTEN,
        max_steps=work.iterations,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        beta=0.0,
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    prompts = [[{"role": "user", "content": told(seed, 0, work.asked)}] for seed in range(512)]
    trainer = Counting(
        model=model,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[Ends()],
        rollout_func=rollout if work.turns > 1 else None,
    )
    trainer.train()
    return clock.result()


def trl_whole(folder: Path, work: Work) -> dict[str, float]:
    """GRPOTrainer with all episodes in one micro-batch."""
    return trl(folder, work, EPISODES)


CONTENDERS: dict[str, Callable[[Path, Work], dict[str, float]]] = {"ours": ours, "trl": trl, "trl_whole": trl_whole}


def run(name: str, folder: Path, work: Work) -> dict[str, float]:
    """Measure in the contender's own environment."""
    from palaestra.envs.isolation.named import environ_of, python_of

    python, environ = (python_of("trl"), environ_of("trl")) if name != "ours" else (sys.executable, {**os.environ})
    command = [python, __file__, "--measure", name, str(folder), *(f"--{k}={v}" for k, v in work._asdict().items())]
    environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    said = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True, timeout=1800).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def compare(folder: Path, work: Work, rounds: int) -> dict[str, Any]:
    """All in turns; ratios are to that of TRL's two settings that is the faster."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in runs:
            runs[name].append(run(name, folder, work))

    def over(key: str, peer: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(runs["ours"], runs[peer], strict=True))

    median = {
        name: {key: float(f"{statistics.median(run[key] for run in found):.4g}") for key in found[0]}
        for name, found in runs.items()
    }
    peer = max(("trl", "trl_whole"), key=lambda name: median[name]["tokens_per_second"])
    ratio, memory = over("tokens_per_second", peer), over("bytes", peer)
    return {
        "ratio": round(ratio, 2),
        "bar": BARS[work.turns],
        "over": peer,
        "cpu_ratio": round(over("tokens_per_cpu_second", peer), 2),
        "memory_ratio": round(memory, 3),
        "memory_bar": MEMORY_BAR,
        "pass": ratio >= BARS[work.turns] and memory <= MEMORY_BAR,
        **median,
    }


def main() -> bool:
    """Whether all bars were reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--turns", type=int, choices=list(BARS), help="one of the two only")
    parser.add_argument("--asked", type=int, default=120, help="words of the first prompt, each a token (default 120)")
    parser.add_argument("--members", type=int, default=8, choices=[2, 4, 8, 16], help="episodes of a group (default 8)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        work = Work(args.turns, args.iterations, args.asked, args.members)
        print(json.dumps(CONTENDERS[args.measure[0]](Path(args.measure[1]), work)))
        return True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(folder)
        works = [Work(turns, args.iterations, args.asked, args.members) for turns in BARS]
        chosen = [work for work in works if args.turns in (None, work.turns)]
        found = {f"turns_{work.turns}": compare(folder, work, args.rounds) for work in chosen}
    worst = min(found.values(), key=lambda one: one["ratio"] / one["bar"])
    passed = all(one["pass"] for one in found.values())
    return conclude("train_vs_trl", worst["ratio"], worst["bar"], also=passed, rounds=args.rounds, **found)


if __name__ == "__main__":
    raise SystemExit(not main())
