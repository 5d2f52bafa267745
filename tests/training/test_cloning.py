import asyncio
import math

import pytest
import torch
from support.levers import LEVERS, register_levers, tiny_model
from support.tokens import tiny

from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import WindowContext
from palaestra.agents.demonstrator import Demonstrator
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.language import LanguageAgent
from palaestra.agents.rollout import Episode, rollout
from palaestra.agents.scripted import OracleAgent
from palaestra.config import OptimiserConfig
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import TrainingError
from palaestra.training.cloning import (
    WeightedRow,
    clone,
    cloning_batches,
    cloning_loss,
    encode_play,
    encode_windows,
    pad_rows,
)
from palaestra.training.forward import PolicyModel
from palaestra.trajectories.record import Trajectory


@pytest.fixture(scope="module")
def plays() -> list[Trajectory]:
    register_levers()
    suite = load_suite("levers:train")
    episodes = [Episode(task=task, id=task.name) for task in suite]
    return asyncio.run(rollout(episodes, OracleAgent(), make))


def test_play_is_encoded_as_a_language_agent_would_have_had_it(plays: list[Trajectory]) -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    row = encode_play(plays[0], chat, observation_weight=0.25)
    text = tiny().decode(row.ids)
    first, second = plays[0].steps
    assert text == (
        f"<|user|>{first.observation}<|assistant|>{LEVERS[0]}<|end|><|user|>{second.observation}"
        f"<|assistant|>{LEVERS[0]}<|end|>"
    )
    weighted = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight == 1]
    assert weighted == chat.completion(LEVERS[0]) * 2
    assert set(row.weights) == {0.0, 0.25, 1.0}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_windows_are_encoded_as_a_language_agent_would_have_had_them(turns: int) -> None:
    chat = ChatFormat.from_tokenizer(tiny())
    task = load_suite("alfworld:train")[3]
    episode = Episode(task=task, id=task.name)
    (play,) = asyncio.run(rollout([episode], OracleAgent(), make))
    actions = [step.action for step in play.steps]
    policy = LanguageAgent(engine=ScriptedEngine(lambda request: []), chat=chat, context=WindowContext(turns))
    (wanted,) = asyncio.run(rollout([episode], Demonstrator(policy, actions), make))
    rows = encode_windows(play, chat, turns, observation_weight=0.5)
    assert len(rows) == len(wanted.steps) > 3
    for index, (row, step) in enumerate(zip(rows, wanted.steps, strict=True)):
        nodes = [*wanted.prompt_of(index), step.completion]
        assert list(row.ids) == [token for node in nodes for token in wanted.nodes[node].ids]
        assert [t for t, w in zip(row.ids, row.weights, strict=True) if w == 1] == chat.completion(step.action)
        assert [t for t, w in zip(row.ids, row.weights, strict=True) if w == 0.5] == chat.user(step.observation)


@torch.no_grad()
def test_loss_is_the_weighted_mean_of_cross_entropies() -> None:
    model = tiny_model()
    rows = [WeightedRow([1, 5, 7, 9], [1.0, 0.5, 0.0, 1.0]), WeightedRow([2, 4], [0.0, 2.0])]
    total = weight = 0.0
    for row in rows:
        logits = model(torch.tensor([list(row.ids)])).logits[0].log_softmax(-1)
        for t in range(1, len(row.ids)):
            total -= row.weights[t] * float(logits[t - 1, row.ids[t]])
            weight += row.weights[t]
    assert float(cloning_loss(PolicyModel(model), pad_rows(rows))) == pytest.approx(total / weight, rel=1e-5)


def test_cloning_an_oracle_makes_its_actions_likely(plays: list[Trajectory]) -> None:
    model, chat = tiny_model(), ChatFormat.from_tokenizer(tiny())
    rows = [encode_play(play, chat) for play in plays]
    batches = cloning_batches(rows, tokens=400, epochs=None)
    losses = clone(model, batches, OptimiserConfig(lr=1e-2, schedule="linear"), steps=120)
    assert len(losses) == 120
    assert losses[0] > 3
    assert losses[-1] < 0.1


def test_batches_keep_to_their_budget_and_cover_every_row_once() -> None:
    rows = [WeightedRow([i + 1] * (i % 7 + 2), [1.0] * (i % 7 + 2)) for i in range(40)]
    batches = list(cloning_batches(rows, tokens=32, epochs=1))
    assert all(batch.ids.numel() <= 32 for batch in batches)
    assert sorted(int(row[0]) for batch in batches for row in batch.ids) == list(range(1, 41))
    assert list(cloning_batches([], tokens=32, epochs=None)) == []


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    model = tiny_model()
    before = model.model.norm.weight.clone()
    rows = [WeightedRow([1, 2], [0.0, math.inf])]
    with pytest.raises(TrainingError, match="cloning step 0: the loss is"):
        clone(model, [pad_rows(rows)], OptimiserConfig(), steps=1)
    assert torch.equal(model.model.norm.weight, before)


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    model = tiny_model()
    before = model.model.norm.weight.clone()
    model.model.layers[0].self_attn.q_proj.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="cloning step 0: the gradient norm is"):
        clone(model, [pad_rows([WeightedRow([1, 2, 3], [1.0] * 3)])], OptimiserConfig(), steps=1)
    assert torch.equal(model.model.norm.weight, before)
