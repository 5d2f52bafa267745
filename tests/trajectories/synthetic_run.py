"""A run directory as training leaves it, made of nothing: real records and metrics of an imaginary agent."""

import json
import math
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models

from palaestra.trajectories.record import Node, StepRecord, Trajectory
from palaestra.trajectories.store import TrajectoryWriter

KINDS = ["pick_and_place", "look_at_obj", "pick_clean", "pick_heat", "pick_cool", "pick_two"]
PLACES = [
    " cabinet 1",
    " cabinet 3",
    " drawer 2",
    " shelf 1",
    " fridge 1",
    " countertop 2",
    " sinkbasin 1",
    " microwave 1",
]
OBJECTS = [" mug 1", " apple 2", " plate 1", " knife 3", " tomato 1"]
VERBS = ["go to", "open", "take", "move", "clean", "heat", "cool", "look", " from", " to", " with", "<|end|>"]
PIECES = {piece: index for index, piece in enumerate([*VERBS, *PLACES, *OBJECTS])}


def wilson(value: float, n: int) -> dict[str, float]:
    z, centre = 1.96, value + 1.96**2 / (2 * n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return {"value": value, "n": n, "low": max(0.0, (centre - half) / scale), "high": min(1.0, (centre + half) / scale)}


def result(rng: np.random.Generator, agent: str, success: float, n: int = 200) -> dict[str, object]:
    kinds = {
        kind: {
            "success": wilson(float(np.clip(success + rng.normal(0, 0.08), 0, 1)), n // 6),
            "length": 14.0,
            "reward": 0.5,
        }
        for kind in KINDS
    }
    return {
        "suite": "alfworld/small:test",
        "agent": agent,
        "n": n,
        "success": wilson(success, n),
        "reward": success,
        "length": 30 - 18 * success,
        "invalid_rate": 0.12 * (1 - success),
        "by_kind": kinds,
        "statuses": {"ok": n},
        "env_steps": 4000,
        "tokens_generated": 16000,
        "seconds": 12.0,
        "temperature": 1.0,
    }


def train_row(rng: np.random.Generator, k: int, total: int, epo: bool) -> dict[str, object]:
    progress = 1 - math.exp(-2.6 * k / total)
    entropy = 0.52 - 0.26 * progress + rng.normal(0, 0.012)
    turns = [
        float(max(0.01, entropy * (0.55 + 0.9 * math.exp(-(((t - 3 - 4 * progress) / 5) ** 2))) + rng.normal(0, 0.02)))
        for t in range(int(30 - 6 * progress))
    ]
    reference = 0.52 - 0.2 * progress if epo and k else None
    return {
        "kind": "train",
        "iteration": k,
        "elapsed": 2.4 * (k + 1),
        "success": float(np.clip(0.5 + 0.42 * progress + rng.normal(0, 0.06), 0, 1)),
        "reward": float(0.5 + 0.42 * progress + rng.normal(0, 0.06)),
        "length": 19 - 7 * progress + rng.normal(0, 0.6),
        "invalid_rate": 0.02 + 0.06 * (1 - progress) + rng.uniform(0, 0.01),
        "entropy": entropy,
        "entropy_by_turn": turns,
        "entropy_success": entropy - 0.05 + rng.normal(0, 0.01),
        "entropy_failure": entropy + 0.09 + rng.normal(0, 0.02) if k % 17 else None,
        "loss": 0.01,
        "surrogate": 0.012,
        "entropy_bonus": entropy,
        "smoothing": 0.004 + 0.003 * rng.uniform() if epo else None,
        "h_ref": reference,
        "corridor_low": 0.5 * reference if reference else None,
        "corridor_high": 1.5 * reference if reference else None,
        "beta": 1 + math.exp(-6 * k / total) if epo else None,
        "frac_below": 0.45 + 0.1 * progress + rng.normal(0, 0.01) if epo else None,
        "frac_above": 0.14 - 0.05 * progress + rng.normal(0, 0.01) if epo else None,
        "grad_norm": 0.4 + 0.3 * rng.uniform(),
        "lr": 3e-4,
        "clip_fraction": 0.02 + 0.02 * rng.uniform(),
        "groups_with_signal": 0.62 - 0.3 * progress + rng.normal(0, 0.05),
        "tokens_generated": 5000 * (k + 1),
        "tokens_trained": 5000 * (k + 1),
        "env_steps": 1200 * (k + 1),
        "rollout_seconds": 1.3,
        "update_seconds": 1.0,
        "rss_bytes": 900_000_000,
    }


def trajectory(rng: np.random.Generator, name: str, index: int, solved: bool, skill: float) -> Trajectory:
    kind = KINDS[index % len(KINDS)]
    thing, place = OBJECTS[index % len(OBJECTS)], PLACES[(index * 3) % len(PLACES)]
    plan = [["go to", PLACES[int(i)]] for i in rng.integers(0, len(PLACES), int(rng.integers(2, 6) + 4 * (1 - skill)))]
    plan += [["take", thing, " from", PLACES[int(rng.integers(8))]], ["go to", place], ["move", thing, " to", place]]
    observation = (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
        "a cabinet 1, a cabinet 3, a countertop 2, a drawer 2, a fridge 1, a microwave 1, a shelf 1, and a sinkbasin 1."
        f"\n\nYour task is to: put a{thing.rstrip('0123456789 ')} in{place.rstrip('0123456789 ')}."
    )
    nodes, steps = [], []
    for turn, words in enumerate(plan):
        nodes.append(Node(ids=[5, 6, 7]))
        nodes.append(completion(rng, [*words, "<|end|>"], skill, turn))
        last = turn == len(plan) - 1
        steps.append(
            StepRecord(
                observation=observation,
                action="".join(words),
                reward=float(solved and last),
                completion=len(nodes) - 1,
                terminated=solved and last,
                truncated=last and not solved,
                invalid=bool(not solved and rng.uniform() < 0.2),
            )
        )
        seen = rng.choice(OBJECTS, 2, replace=False)
        observation = f"You arrive at{words[-1]}. On the{words[-1]}, you see a{seen[0]}, and a{seen[1]}."
    meta = {"advantage": float(0.9 * (1 if solved else -1) * rng.uniform(0.4, 1.0))} if name.startswith("i") else {}
    return Trajectory(
        id=f"{name.lstrip('i')}/{index // 4}/{index % 4}",
        env="alfworld/Household-v0",
        task=f"small:test/{index:04d}",
        kind=kind,
        seed=index,
        success=solved,
        total_reward=float(solved),
        nodes=nodes,
        steps=steps,
        final_observation=f"You move the{thing} to the{place}." if solved else "Nothing happens.",
        meta=meta,
    )


def completion(rng: np.random.Generator, words: list[str], skill: float, turn: int) -> Node:
    sizes = [int(rng.integers(2, 12)) for _ in words[:-1]] + [1]
    peak = 1.1 * (1 - 0.6 * skill) * math.exp(-((turn - 4) ** 2) / 20)
    entropies = [float(peak * rng.uniform(0.2, 1.6)) * (0.4 if at % 2 else 1) for at in range(len(words))]
    entropies[-1] = 0.0
    return Node(
        ids=[PIECES[word] for word in words],
        role="assistant",
        sampled=True,
        logprobs=[-entropy * float(rng.uniform(0.2, 1.5)) for entropy in entropies],
        entropies=entropies,
        allowed=[sorted(rng.choice(len(PIECES), size, replace=False).tolist()) for size in sizes],
    )


def write_run(folder: Path, *, iterations: int = 96, algorithm: str = "epo", seed: int = 0) -> Path:
    """The folder, filled."""
    rng = np.random.default_rng(seed)
    for name in ("eval", "trajectories", "model"):
        (folder / name).mkdir(parents=True)
    final = {"random": 0.06, "warm": 0.485, "rl": 0.86 if algorithm == "epo" else 0.795, "oracle": 1.0}
    results = {tag: result(rng, tag, value) for tag, value in final.items()}
    for tag, content in results.items():
        (folder / "eval" / f"{tag}.json").write_text(json.dumps(content))
    with open(folder / "metrics.jsonl", "w") as file:
        for k in range(iterations):
            row = train_row(rng, k, iterations, algorithm == "epo")
            file.write(json.dumps(row) + "\n")
            if (k + 1) % max(1, iterations // 6) == 0:
                extra = {"kind": "eval", "iteration": k, "elapsed": row["elapsed"], "tag": "validation"}
                success = float(
                    np.clip(0.48 + 0.36 * (1 - math.exp(-2.6 * k / iterations)) + rng.normal(0, 0.02), 0, 1)
                )
                file.write(json.dumps({**result(rng, "policy", success, 96), **extra}) + "\n")
    write_trajectories(rng, folder / "trajectories", iterations)
    summary = {f"success_{tag}": content["success"] for tag, content in results.items()}
    summary |= {
        "algorithm": algorithm,
        "seed": seed,
        "train_seconds": 251.3,
        "wall_seconds": 342.7,
        "report": "report.html",
    }
    summary |= {
        "peak_rss_bytes": 1_240_000_000,
        "env_steps": 114_213,
        "tokens_generated": 486_120,
        "tokens_trained": 481_002,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "recipe.yaml").write_text(f"algorithm: {algorithm}\nsuite: alfworld/small\noptimiser:\n  lr: 0.0003\n")
    tokenizer = Tokenizer(models.WordLevel(PIECES, unk_token="look"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    return folder


def write_trajectories(rng: np.random.Generator, folder: Path, iterations: int) -> None:
    for tag, skill in (("warm", 0.1), ("rl", 1.0)):
        with TrajectoryWriter(folder / f"eval-{tag}.ptj") as writer:
            for index in range(24):
                writer.append(trajectory(rng, tag, index, bool(rng.uniform() < 0.45 + 0.4 * skill), skill))
    with TrajectoryWriter(folder / "train.ptj") as writer:
        for k in (0, iterations // 2, iterations - 1):
            for index in range(16):
                skill = k / iterations
                writer.append(trajectory(rng, f"i{k}", index, index % 4 != 1, skill))
