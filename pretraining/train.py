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
from transformers import LlamaConfig, LlamaForCausalLM

from palaestra.agents.attention import use_plain_attention
from palaestra.training.cloning import CloningBatch, cloning_loss
from palaestra.training.forward import PolicyModel
from pretraining.batches import Encoder, batches, held_out
from pretraining.tokenizer import train_tokenizer


def build(vocabulary: int) -> LlamaForCausalLM:
    """The model's shape: 1.4 M parameters, one KV head."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=1,
            intermediate_size=512,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    use_plain_attention(model)  # its backward pass is faster on CPU than the fused kernel's
    return model


def actions_loss(policy: PolicyModel, ids: Tensor, weights: Tensor) -> float:
    """Mean cross-entropy of the player's tokens, whose weight is 1, in nats a token."""
    with torch.no_grad():
        return cloning_loss(policy, CloningBatch(ids, (weights == 1).float())).item()


def optimisers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)]


def pretrain(minutes: float, out: Path, tokens: int, lr: float, observation_weight: float) -> None:
    """Train for `minutes` of wall-clock time and save model, tokenizer and the loss curve in `out`."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer()
    encoder = Encoder(tokenizer, observation_weight)
    model, check = build(len(tokenizer)), held_out(encoder)
    policy, optims = PolicyModel(model, autocast=torch.bfloat16), optimisers(model, lr)
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
