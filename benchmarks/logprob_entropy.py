"""Memory and CPU time of `logprob_entropy` against the function that everybody writes first.

The baseline materialises the logits: `logits = hidden @ weight.T`, `log_softmax`, `-(p * log p).sum()`. Both run
forward and backward with gradients through log-prob and entropy to hidden states and head. Each measurement is a
fresh process, so that the peak of its resident memory is its own; baseline and ours alternate.

    python benchmarks/logprob_entropy.py [--rounds 3] [--tokens 2048 --hidden 256 --vocab 151936]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MEMORY_BAR = 15.0
TIME_BAR = 0.7


def naive(hidden: Any, weight: Any, labels: Any) -> tuple[Any, Any]:
    logits = hidden @ weight.T
    logp = logits.log_softmax(-1)
    return logp.gather(1, labels[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def ours(hidden: Any, weight: Any, labels: Any) -> tuple[Any, Any]:
    from palaestra.training.logprob import logprob_entropy

    return logprob_entropy(hidden, weight, labels)


def status_bytes(field: str) -> int:
    """A line of /proc/self/status, such as VmRSS or VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(kind: str, tokens: int, width: int, vocab: int) -> dict[str, Any]:
    """One forward and backward in this process."""
    import torch

    torch.set_num_threads(1)  # threads that wait for each other spin, and would count as CPU seconds
    function = {"naive": naive, "ours": ours}[kind]
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(8, 8, requires_grad=True), torch.randn(16, 8, requires_grad=True), torch.zeros(8).long()
    sum(x.sum() for x in function(*small)).backward()  # pages in the code of both passes
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator).mul_(0.1).requires_grad_()
    labels = torch.randint(vocab, (tokens,), generator=generator)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, cpu, wall = status_bytes("VmRSS"), time.process_time(), time.perf_counter()
    logprob, entropy = function(hidden, weight, labels)
    (-logprob.mean() - 0.01 * entropy.mean()).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return {
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
        "peak_bytes": status_bytes("VmHWM") - before,
        "check": [float(x.detach()) for x in (logprob.mean(), entropy.mean(), hidden.grad.norm(), weight.grad.norm())],
    }


def in_fresh_process(kind: str, shape: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", kind, *shape]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind:>6}  {result['peak_bytes'] / 2**20:9.1f} MiB  {result['cpu_seconds']:7.2f} s CPU", flush=True)
    return result


def agree(a: list[float], b: list[float]) -> bool:
    return all(abs(x - y) <= 1e-3 * abs(x) for x, y in zip(a, b, strict=True))


def compare(rounds: int, shape: list[str]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"naive": [], "ours": []}
    for _ in range(rounds):
        for kind, results in runs.items():
            results.append(in_fresh_process(kind, shape))
    median = {
        kind: {key: statistics.median(r[key] for r in rs) for key in ("peak_bytes", "cpu_seconds", "wall_seconds")}
        for kind, rs in runs.items()
    }
    memory = median["naive"]["peak_bytes"] / median["ours"]["peak_bytes"]
    cpu = median["ours"]["cpu_seconds"] / median["naive"]["cpu_seconds"]
    same = agree(runs["naive"][0]["check"], runs["ours"][0]["check"])
    return {
        "name": "logprob_entropy",
        "ratio": round(memory, 2),
        "bar": MEMORY_BAR,
        "cpu_time_ratio": round(cpu, 3),
        "cpu_time_bar": TIME_BAR,
        "pass": memory >= MEMORY_BAR and cpu <= TIME_BAR and same,
        "same_numbers": same,
        "rounds": rounds,
        "naive": median["naive"],
        "ours": median["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--measure", choices=["naive", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.tokens, args.hidden, args.vocab)))
        return
    shape = [f"--tokens={args.tokens}", f"--hidden={args.hidden}", f"--vocab={args.vocab}"]
    print(json.dumps(compare(args.rounds, shape)))


if __name__ == "__main__":
    main()
