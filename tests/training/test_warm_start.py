from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from palaestra.agents.models import load_model
from palaestra.config import Recipe, parse_recipe
from palaestra.envs import registry
from palaestra.envs.core import Env, Reset
from palaestra.envs.tasks import TaskSuite, load_suite
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.checkpoint import fingerprint
from palaestra.training.fresh import build_model, train_tokenizer
from palaestra.training.run import train
from palaestra.training.warm_start import base_model

TEXT = """
name: warm
tasks: {train: "alfworld:train[:40]", test: "alfworld:test", max_turns: 8}
warm_start: {episodes: 16, epochs: 1, vocabulary: 600, batch_tokens: 2048}
agent: {max_tokens: 8}
rollout: {groups: 1, group_size: 2}
budget: {iterations: 1}
evaluation: {every: 0, test_episodes: 2}
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, overrides)


def suite(wanted: Recipe) -> TaskSuite:
    return load_suite(wanted.tasks.train, **wanted.tasks.params)


def test_it_is_made_once_and_is_the_same_again(cache: Path) -> None:
    rows: list[dict[str, object]] = []
    state = torch.random.get_rng_state()
    first = base_model(recipe(), suite(recipe()), lambda row: rows.append(dict(row)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {row["tag"] for row in rows} == {"playing", "cloning"}
    assert rows[-1]["done"] == rows[-1]["total"]
    rows.clear()
    other_seed = recipe("seed=7", "algorithm.name=grpo")
    assert base_model(other_seed, suite(other_seed), lambda row: rows.append(dict(row))) == first
    assert not rows
    weights = fingerprint(load_model(first).model)
    (first / "SHA256SUMS").unlink()  # as if it had been killed before the end
    assert fingerprint(load_model(base_model(recipe(), suite(recipe()))).model) == weights


@pytest.mark.parametrize("override", ["warm_start.epochs=2", "tasks.train=alfworld:train[:41]", "agent.system=Hi."])
def test_another_wish_is_another_model(override: str) -> None:
    folders = {base_model(wanted, suite(wanted)) for wanted in (recipe(), recipe(override))}
    assert len(folders) == 2


def test_it_can_go_on_from_a_model() -> None:
    wanted = recipe("warm_start.fresh=false", "warm_start.lr=1e-4")
    base = load_model(base_model(wanted, suite(wanted)))
    tiny = load_model("palaestra-tiny")
    assert len(base.tokenizer) == len(tiny.tokenizer)
    assert fingerprint(base.model) != fingerprint(tiny.model)


def test_a_run_begins_with_it(tmp_path: Path) -> None:
    wanted = recipe(f"out={tmp_path / 'run'}")
    result = train(wanted)
    assert result.stopped != "interrupted"
    trained = load_model(tmp_path / "run")
    assert len(trained.tokenizer) <= 600
    base = load_model(base_model(wanted, suite(wanted)))
    assert trained.tokenizer.get_vocab() == base.tokenizer.get_vocab()


def test_a_directory_that_holds_a_run_is_refused_before_anything_is_cloned(tmp_path: Path, cache: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "recipe.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(recipe(f"out={directory}"))
    assert not (cache / "bases").exists()


def test_a_suite_without_an_expert_is_an_error() -> None:
    wanted = recipe("tasks.train=alfworld:train[:3]", "warm_start.episodes=2")

    class Silent(Env[str, str]):
        async def reset(self, **_: object) -> Reset[str]:
            return Reset("?", {})

    registry.register("test/Silent-v0", Silent, override=True)
    inner = suite(wanted)
    silent = TaskSuite("silent", "train", 2, lambda i: msgspec.structs.replace(inner[i], env="test/Silent-v0"))
    try:
        with pytest.raises(TrainingError, match=r"no episode of the warm start can be played: .*no oracle"):
            base_model(wanted, silent)
    finally:
        registry._SPECS.pop("test/Silent-v0")


def test_shares_are_of_one_whole() -> None:
    with pytest.raises(ConfigError, match="at most 1"):
        recipe("warm_start.expert=0.8", "warm_start.noisy=0.4")


def test_a_fresh_tokenizer_reads_everything() -> None:
    tokenizer = train_tokenizer(["go to desk 1", "You see a desk 1."] * 20, 512)
    for text in ("go to desk 1", "été 漢字 \x00 <|user|>", " \n\t  12345"):
        ids = tokenizer.encode(text, split_special_tokens=True)
        assert tokenizer.decode(ids) == text
    assert len(tokenizer.encode("go to desk 1")) <= 4
    assert build_model(len(tokenizer), width=32, layers=1, heads=2).config.vocab_size == len(tokenizer)
