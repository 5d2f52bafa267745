"""The openai engine and agent against a real `vllm serve`, as a user would start it: one start for all of it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.vllm_models import smollm2, vllm_python

from palaestra.agents.api.opening import load_api_agent
from palaestra.agents.api.settings import ApiSettings
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.cli.main import main
from palaestra.config import LearnerConfig, parse_recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import DataError
from palaestra.training.algorithms import build_algorithm
from palaestra.training.learner import Learner
from palaestra.training.rows import build_rows
from palaestra.training.saving import save_model
from palaestra.trajectories.record import Trajectory

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

KEY = f"sk-{secrets.token_urlsafe(24)}"
MODEL = "smollm2"
START_SECONDS = 600.0
CONTEXT = 1024


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """`vllm serve`, until the block ends; the URL of its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "8", "--enforce-eager"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    environ = {
        **os.environ,
        **{"VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        **{"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environ, start_new_session=True)
        try:
            _await_health(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        words = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None, words
        assert time.monotonic() < deadline, words
        time.sleep(0.5)


def played(url: str, settings: ApiSettings, turns: int = 3, n: int = 4, suite: str = "alfworld/small:test") -> Any:
    async def go() -> list[Trajectory]:
        agent: Any = load_api_agent(f"openai:{MODEL}@{url}", settings)
        tasks = load_suite(suite)
        episodes = [Episode(task=tasks[k], id=str(k)) for k in range(n)]
        try:
            return await rollout(episodes, agent, make, RolloutLimits(max_turns=turns, retries=0))
        finally:
            await agent.engine.close()

    return asyncio.run(go())


def error_of(trajectories: list[Trajectory], temperature: float = 1.0) -> tuple[float, int]:
    """How far the learner's log-probs are from the endpoint's, at most, and of how many tokens."""
    batch = build_rows(trajectories, temperature=temperature).batch
    recipe = parse_recipe('name: x\ntasks: {train: "a:train"}\n', ())
    learner = Learner(smollm2().model, build_algorithm(recipe), config=LearnerConfig(), optimiser=recipe.optimiser)
    difference = (learner.score(batch).logprob - batch.rollout_logprob)[batch.mask].abs()
    return float(difference.max()), difference.numel()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vllm_python()
    folder = tmp_path_factory.mktemp("model") / "smollm2"
    save_model(folder, smollm2())
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(model, tmp_path_factory.mktemp("log") / "log") as served:
        yield served


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_token_ids_there_and_back_are_trainable(url: str, model: Path) -> None:
    trajectories = played(url, ApiSettings(tokenizer=str(model), max_tokens=24, action="message"))
    assert {t.status for t in trajectories} == {"ok"}, [t.error for t in trajectories]
    assert all(step.prompt is None for t in trajectories for step in t.steps), "every prompt extends the one before"
    error, tokens = error_of(trajectories)
    assert error <= 1e-4
    assert (
        tokens
        == sum(t.sampled_tokens for t in trajectories)
        == sum(t.meta["usage"]["completion_tokens"] for t in trajectories)
    )
    again = played(url, ApiSettings(tokenizer=str(model), max_tokens=24, action="message"), n=1)
    assert [n.ids for n in again[0].nodes] == [n.ids for n in trajectories[0].nodes], "the seed decides"


def test_chats_are_trainable_too(url: str) -> None:
    settings = ApiSettings(max_tokens=24)
    trajectories = played(url, settings)
    assert {t.status for t in trajectories} == {"ok"}, [t.error for t in trajectories]
    error, tokens = error_of(trajectories)
    assert error <= 1e-4
    assert tokens == sum(t.sampled_tokens for t in trajectories) > 50
    with pytest.raises(DataError, match="log-probs are of temperature 1"):
        build_rows(played(url, replace(settings, temperature=0.5), turns=1, n=1), temperature=0.5)


def test_an_evaluation_by_choice_and_its_cost(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["eval", "alfworld/small:test", "--agent", f"openai:{MODEL}@{url}", "--episodes", "3", "--max-turns", "2"]
    more = ["--action", "choice", "--price", "1,2", "--json", "--out", str(tmp_path), "--resume", "--max-tokens", "64"]
    assert main([*command, *more]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["statuses"], result["env_steps"], result["invalid_rate"]) == ({"ok": 3}, 6, 0.0)
    usage = result["usage"]
    assert usage["requests"] == 6
    assert usage["prompt_tokens"] > 500
    assert usage["cost"] == pytest.approx((usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1e6)
    assert main([*command, *more]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == usage


def test_tools_are_taken_by_the_endpoint(url: str) -> None:
    (trajectory,) = played(url, ApiSettings(action="tool", max_tokens=48), turns=2, n=1, suite="search:test")
    assert trajectory.status == "ok", trajectory.error
    assert len(trajectory.steps) == 2


@pytest.mark.parametrize("tokens", [False, True])
def test_a_context_that_is_too_small_is_told(url: str, model: Path, tokens: bool) -> None:
    settings = ApiSettings(system="Go on. " * CONTEXT, max_tokens=24, tokenizer=str(model) if tokens else "")
    (trajectory,) = played(url, settings, n=1)
    assert "says that the prompt is too long: " in trajectory.error


def test_a_wrong_key_and_a_wrong_model_are_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (trajectory,) = played(url.replace("/v1", "/v2"), ApiSettings(), n=1)
    assert "does not have" in trajectory.error
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something-else")
    (trajectory,) = played(url, ApiSettings(), n=1)
    assert "does not accept the API key in OPENAI_API_KEY" in trajectory.error
