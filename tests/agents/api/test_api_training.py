"""What was played at an endpoint that tells tokens is what a learner computes: proved with a real model behind it."""

from __future__ import annotations

import asyncio
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from support.endpoints import Endpoint, ModelServer, endpoint

from palaestra.agents.api.formats import TextReply
from palaestra.agents.api.opening import load_api_agent
from palaestra.agents.api.settings import ApiSettings
from palaestra.agents.engines.base import Completion, Request
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import LoadedModel, load_model
from palaestra.agents.opening import language_agent
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.config import AgentConfig, LearnerConfig, parse_recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import EngineError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.batch import Batch
from palaestra.training.learner import Learner
from palaestra.training.rows import build_rows
from palaestra.trajectories.record import Trajectory

LIMITS = RolloutLimits(max_turns=4, concurrency=4, retries=0)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("palaestra-tiny")


@pytest.fixture(scope="module")
def served(loaded: LoadedModel) -> Iterator[Endpoint]:
    with endpoint(ModelServer(loaded)) as running:
        yield running


def episodes(members: int = 3) -> list[Episode]:
    suite = load_suite("alfworld/small:train")
    return [
        Episode(task=suite[task], id=f"{task}/{member}", group=str(task))
        for task in range(2)
        for member in range(members)
    ]


def played(agent: Any) -> list[Trajectory]:
    async def go() -> list[Trajectory]:
        try:
            return await rollout(episodes(), agent, make, LIMITS)
        finally:
            await agent.engine.close()

    trajectories = asyncio.run(go())
    assert {t.status for t in trajectories} == {"ok"}, [t.error for t in trajectories]
    return trajectories


def error_of(loaded: LoadedModel, batch: Batch) -> float:
    """How far the learner's log-probs are from those of the rollout, at most."""
    recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', ())
    learner = Learner(loaded.model, build_algorithm(recipe), config=LearnerConfig(), optimiser=recipe.optimiser)
    logprob = learner.score(batch).logprob
    return float((logprob - batch.rollout_logprob)[batch.mask].abs().max())


class SmallSeeds(TorchEngine):
    """Draws as the endpoint does, which is sent seeds of 31 bits."""

    async def generate(self, request: Request) -> Completion:
        sampling = msgspec.structs.replace(request.sampling, seed=request.sampling.seed % 2**31)
        return await super().generate(msgspec.structs.replace(request, sampling=sampling))


def test_token_ids_over_http_are_those_of_an_engine_at_hand(loaded: LoadedModel, served: Endpoint) -> None:
    settings = ApiSettings(tokenizer="palaestra-tiny", max_tokens=12)
    remote = played(load_api_agent(served.agent(), settings))
    config = AgentConfig(max_tokens=12, system=TextReply().system)
    local = played(language_agent(loaded, config, engine=SmallSeeds(loaded.model, slots=4)))
    assert [[n.ids for n in t.nodes] for t in remote] == [[n.ids for n in t.nodes] for t in local]
    assert [[s.action for s in t.steps] for t in remote] == [[s.action for s in t.steps] for t in local]
    far, near = build_rows(remote).batch, build_rows(local).batch
    for column in ("ids", "length", "mask", "step_id", "traj", "group", "reward"):
        assert torch.equal(getattr(far, column), getattr(near, column)), column
    assert torch.allclose(far.rollout_logprob, near.rollout_logprob, atol=1e-5)
    assert len(far.length) == len(remote), "a row an episode: nothing was encoded twice"
    assert error_of(loaded, far) <= 1e-4
    usage = remote[0].meta["usage"]
    assert usage["completion_tokens"] == remote[0].sampled_tokens
    assert usage["requests"] == 4


def test_chats_of_an_endpoint_that_tells_tokens_are_trainable(loaded: LoadedModel, served: Endpoint) -> None:
    trajectories = played(load_api_agent(served.agent(), ApiSettings(max_tokens=12)))
    assert not any("untrainable" in t.meta for t in trajectories)
    batch = build_rows(trajectories).batch
    assert int(batch.mask.sum()) == sum(t.sampled_tokens for t in trajectories) > 50
    assert error_of(loaded, batch) <= 1e-4
    assert int(batch.length.sum()) < sum(
        len(t.nodes[n].ids) for t in trajectories for turn in range(len(t.steps)) for n in t.prompt_of(turn)
    ), "shared prompts are in a row once"


def test_a_context_that_is_full_at_the_endpoint_is_an_overflow(served: Endpoint) -> None:
    async def go(settings: ApiSettings) -> tuple[str, str, int]:
        agent = load_api_agent(served.agent(), settings)
        try:
            (trajectory,) = await rollout(episodes(1)[:1], agent, make, replace(LIMITS, max_turns=60))
        finally:
            await agent.engine.close()  # type: ignore[attr-defined]
        return trajectory.status, trajectory.error, len(trajectory.steps)

    for tokenizer in ("palaestra-tiny", ""):
        status, error, steps = asyncio.run(go(ApiSettings(max_tokens=1900, tokenizer=tokenizer)))
        assert (status, error) == ("overflow", "")
        assert 0 < steps < 60
        status, error, steps = asyncio.run(go(ApiSettings(max_tokens=4000, tokenizer=tokenizer)))
        assert (status, steps) == ("error", 0)
        assert "the prompt is too long: This model's maximum context length is 2048" in error, "nothing would ever fit"


def test_weights_behind_an_endpoint_are_not_ours(served: Endpoint) -> None:
    agent: Any = load_api_agent(served.agent(), ApiSettings(tokenizer="palaestra-tiny"))
    with pytest.raises(EngineError, match="cannot be changed from here"):
        asyncio.run(agent.engine.update_weights({}, 1))


def test_the_how_to_gives_a_batch(served: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3] / "docs/how-to/evaluate-an-api-model.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    block = block.replace("http://127.0.0.1:8000/v1", served.url).replace("path/to/my-model", "palaestra-tiny")
    script = tmp_path / "page.py"
    script.write_text(block.replace("range(8)", "range(2)").replace("tokenizer=", "max_tokens=6, tokenizer="))
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith("torch.Size([2, ")
