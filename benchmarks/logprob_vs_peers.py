"""Memory and CPU time of `logprob_entropy` against TRL's and verl's torch paths for the same numbers.

Log-prob of the token taken and entropy of the whole distribution, forward and backward, gradients through both to
hidden states and head. Each measurement is a process of its own, in that project's environment; they take turns.

    trl          `ChunkedLogProbFunction` as GRPOTrainer calls it (vocabulary in tiles of 32,768)
    trl_small    the same with our tile's width, for less memory
    verl         `FusedLinearForPPO`, torch back end (tokens in chunks of 512)
    verl_small   the same with chunks of 128, for less memory

Both ratios are ours over the smallest of all peers', memory and time each on its own.

    palaestra interpreters --build trl verl
    python benchmarks/logprob_vs_peers.py [--rounds 3] [--tokens 2048 --hidden 256 --vocab 151936]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _harness import conclude, status_bytes

MEMORY_BAR = 0.6
TIME_BAR = 0.65
PEERS = {"trl": "trl", "trl_small": "trl", "verl": "verl", "verl_small": "verl"}
"""Contenders and their environments."""


def ours() -> Callable[..., Any]:
    from palaestra.training.logprob import logprob_entropy

    return logprob_entropy


def trl(tile: int) -> Callable[..., Any]:
    from trl.kernels import ChunkedLogProbFunction

    def run(hidden: Any, weight: Any, labels: Any) -> Any:
        return ChunkedLogProbFunction.apply(
            hidden, weight, None, labels, 1.0, tile, None, 1.0, ("log_probs", "entropy")
        )[:2]

    return run


def verl(chunk: int) -> Callable[..., Any]:
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    return FusedLinearForPPO(chunk_size=chunk)


CONTENDERS: dict[str, Callable[[], Callable[..., Any]]] = {
    "ours": ours,
    "trl": lambda: trl(32768),
    "trl_small": lambda: trl(4096),
    "verl": lambda: verl(512),
    "verl_small": lambda: verl(128),
}


def measure(name: str, tokens: int, width: int, vocab: int) -> dict[str, float]:
    """One forward and backward pass: seconds of CPU and wall, bytes above what was there before, and the numbers."""
    import torch

    torch.set_num_threads(1)
    function = CONTENDERS[name]()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = (torch.randn(vocab, width, generator=generator) / width**0.5).requires_grad_()
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    slopes = torch.randn(2, tokens, generator=generator)
    small = hidden[:8].detach().requires_grad_(), weight[:512].detach().requires_grad_(), labels[:8] % 512
    sum(each.sum() for each in function(*small)).backward()  # what is loaded at the first call is nobody's memory
    before, cpu, wall = status_bytes("VmRSS"), time.process_time(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    logprob, entropy = function(hidden, weight, labels)
    (logprob * slopes[0] + entropy * slopes[1]).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "bytes": status_bytes("VmHWM") - before,
        "logprob": float(logprob.detach().double().mean()),
        "entropy": float(entropy.detach().double().mean()),
        "grad_hidden": float(hidden.grad.double().norm()),
        "grad_weight": float(weight.grad.double().norm()),
    }


def run(name: str, shape: list[str]) -> dict[str, float]:
    """Measure in the contender's own environment."""
    from palaestra.envs.isolation.named import environ_of, python_of

    python, environ = (python_of(PEERS[name]), environ_of(PEERS[name])) if name in PEERS else (sys.executable, None)
    command = [python, __file__, "--measure", name, *shape]
    said = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True, timeout=900).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def compare(rounds: int, shape: list[str]) -> bool:
    """All contenders in turns; whether ours reached both bars with the same numbers."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            runs[name].append(run(name, shape))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]} for name, found in runs.items()
    }
    numbers = ("logprob", "entropy", "grad_hidden", "grad_weight")
    mine = median["ours"]
    same = all(
        abs(median[name][key] - mine[key]) <= 1e-4 * max(1.0, abs(mine[key])) for name in PEERS for key in numbers
    )
    memory = mine["bytes"] / min(median[name]["bytes"] for name in PEERS)
    cpu = mine["cpu"] / min(median[name]["cpu"] for name in PEERS)
    return conclude(
        "logprob_vs_peers",
        memory,
        MEMORY_BAR,
        at_most=True,
        also=cpu <= TIME_BAR and same,
        cpu_time_ratio=cpu,
        cpu_time_bar=TIME_BAR,
        same_numbers=same,
        rounds=rounds,
        **{
            name: {"MB": round(found["bytes"] / 1e6), "cpu": found["cpu"], "wall": found["wall"]}
            for name, found in median.items()
        },
    )


def main() -> bool:
    """Whether all bars were reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--measure", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.tokens, args.hidden, args.vocab)))
        return True
    shape = [f"--tokens={args.tokens}", f"--hidden={args.hidden}", f"--vocab={args.vocab}"]
    return compare(args.rounds, shape)


if __name__ == "__main__":
    raise SystemExit(not main())
