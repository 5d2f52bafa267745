"""Pre-train palaestra-tiny: python -m pretraining.train --minutes 60 --out runs/pretraining

Muon (Jordan et al., 2024) on the matrices, AdamW on the rest, a linear decay to zero over the time budget. Leaves a
directory that `palaestra.agents.models.load_model` reads. The published weights took the time that the model card says.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from palaestra.training.cloning import CloningBatch, cloning_loss
from palaestra.training.forward import PolicyModel
from palaestra.training.fresh import build_model, young_optimisers
from pretraining.batches import Encoder, batches, held_out
from pretraining.tokenizer import train_tokenizer


def actions_loss(policy: PolicyModel, ids: Tensor, weights: Tensor) -> float:
    """Mean cross-entropy of the player's tokens, whose weight is 1, in nats a token."""
    with torch.no_grad():
        return cloning_loss(policy, CloningBatch(ids, (weights == 1).float())).item()


def pretrain(minutes: float, out: Path, tokens: int, lr: float, observation_weight: float) -> None:
    """Train for `minutes` of wall-clock time and save model, tokenizer and the loss curve in `out`."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer()
    encoder = Encoder(tokenizer, observation_weight)
    model, check = build_model(len(tokenizer)), held_out(encoder)
    policy, optims = PolicyModel(model, autocast=torch.bfloat16), young_optimisers(model, lr)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    start, seen, stream = time.monotonic(), 0, batches(encoder, tokens, seed=0)
    log = (out / "loss.jsonl").open("a")
    for step in count():
        progress = (time.monotonic() - start) / (minutes * 60)
        if progress >= 1:
            break
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / 200) * (1 - progress)
        ids, weights = next(stream)
        seen += int((ids > 0).sum())
        loss = cloning_loss(policy, CloningBatch(ids, weights))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        if step % 100 == 0:
            row = {"step": step, "tokens": seen, "seconds": round(time.monotonic() - start, 1)}
            row["act"] = actions_loss(policy, ids, weights)
            if step % 500 == 0:
                row["validation"] = validate(policy, check)
                model.save_pretrained(out)
            print(json.dumps(row), file=log, flush=True)
    model.save_pretrained(out)
    row = {"step": step, "tokens": seen, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(row | {"validation": validate(policy, check)}), file=log, flush=True)


def validate(policy: PolicyModel, check: list[tuple[Tensor, Tensor]]) -> float:
    """Mean cross-entropy of the player's tokens on the held-out sample, nats a token."""
    return sum(actions_loss(policy, *batch) for batch in check) / len(check)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of one batch")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--observation-weight", type=float, default=0.3)
    args = parser.parse_args()
    pretrain(args.minutes, args.out, args.tokens, args.lr, args.observation_weight)
