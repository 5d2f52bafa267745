"""The player with an engine of its own: when it is handed weights, and what it starts again from."""

import asyncio
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import levers_recipe
from support.runs import prepared

from palaestra.agents.engines.base import Request, SamplingParams
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.engines.vllm.adapters import Adapters
from palaestra.agents.engines.vllm.checkpoint import write_weights
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.models import LoadedModel, load_model
from palaestra.config import Recipe
from palaestra.errors import ConfigError, TrainingError
from palaestra.training import engine_player
from palaestra.training.lora import NAME, add_lora, has_lora, own_weights
from palaestra.training.run import train

PLAIN = ["engine.kind=vllm", "evaluation.test_episodes=0", "evaluation.every=0"]


class Served:
    """Stands for vLLM: what it loaded when it was started."""

    def __init__(self, options: VLLMOptions, served: list[Any]) -> None:
        self.options, self.context_length = options, options.context_length
        served.append(self)

    async def start(self) -> None:
        self.model = load_model(self.options.folder).model
        self.engine = TorchEngine(self.model)

    async def close(self) -> None:
        await self.engine.close()


class Reading:
    """Stands for `VLLMEngine`."""

    def __init__(
        self, transport: Served, folder: Path, *, exchange: Path, sender: None, adapters: Adapters | None
    ) -> None:
        self.transport, self.exchange, self.adapters = transport, exchange, adapters

    async def start(self) -> "Reading":
        await self.transport.start()
        return self

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        if weights and self.adapters is not None:
            await self.update_adapter(self.adapters.write(weights, version), version)
            return
        if weights:
            write_weights(self.exchange, weights)
        await self.transport.engine.update_weights(dict(weights), version)

    async def update_adapter(self, folder: Path, version: int) -> None:
        model: Any = self.transport.model
        if has_lora(model):
            model.delete_adapter(NAME)
        model.load_adapter(str(folder), adapter_name=NAME)
        await self.transport.engine.update_weights({}, version)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport.engine, name)


class Apart(TorchEngine):
    """Has weights of its own, and keeps which it was handed."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(copy.deepcopy(loaded.model), slots=16)
        self.handed: list[tuple[int, bytes]] = []

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        await super().update_weights(weights, version)
        if weights:
            self.handed.append((version, fingerprint(weights)))


def fingerprint(weights: Mapping[str, torch.Tensor]) -> bytes:
    return b"".join(weights[name].detach().numpy().tobytes() for name in sorted(weights))


def test_every_update_is_handed_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Apart] = []

    async def start(recipe: Recipe, loaded: LoadedModel, folder: Path, **more: Any) -> Apart:
        started.append(Apart(loaded))
        return started[-1]

    monkeypatch.setattr(engine_player, "start_engine", start)
    result = train(levers_recipe(prepared(tmp_path), *PLAIN, "budget.iterations=3"))
    assert result.counters.iteration == 3
    (engine,) = started
    assert [version for version, _ in engine.handed] == [0, 1, 2]
    assert len({weights for _, weights in engine.handed}) == 3


def test_it_starts_again_from_the_last_hand_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an update changes the learner's weights; and an engine with others is found out."""
    served: list[Served] = []
    monkeypatch.setattr(engine_player, "_transport", lambda config, options, folder: Served(options, served))
    monkeypatch.setattr(engine_player, "VLLMEngine", Reading)
    recipe = levers_recipe(prepared(tmp_path), *PLAIN, "trainer.mode=async", "trainer.restarts=1")
    loaded = load_model(tmp_path / "base")
    request = Request(prompt=[5, 6, 7], sampling=SamplingParams(max_tokens=4))

    async def go() -> None:
        player = engine_player.EnginePlayer(recipe, loaded)
        await player.update_weights(loaded.model.state_dict(), 3)
        handed, agent = fingerprint(loaded.model.state_dict()), player._supervised
        before = await agent.generate(request)
        with torch.no_grad():
            loaded.model.model.norm.weight.mul_(1.5)  # the update goes on meanwhile
        await served[-1].close()
        assert await agent.generate(request) == before
        assert player.restarts == 1
        assert fingerprint(served[-1].model.state_dict()) == handed
        exchange = Path(player._folder.name) / "exchange"
        write_weights(exchange, loaded.model.state_dict())
        await served[-1].close()
        with pytest.raises(TrainingError, match="under weights 3"):
            await agent.generate(request)
        await player.update_weights(loaded.model.state_dict(), 4)
        assert fingerprint(served[-1].model.state_dict()) == fingerprint(loaded.model.state_dict())
        await player.close()

    asyncio.run(go())


def test_it_starts_again_from_the_adapter_of_the_last_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'palaestra[lora]'")
    served: list[Served] = []
    monkeypatch.setattr(engine_player, "_transport", lambda config, options, folder: Served(options, served))
    monkeypatch.setattr(engine_player, "VLLMEngine", Reading)
    recipe = levers_recipe(prepared(tmp_path), *PLAIN, "trainer.mode=async", "model.lora.rank=2")
    loaded = load_model(tmp_path / "base")
    add_lora(loaded.model, recipe.model.lora, 0)
    request = Request(prompt=[5, 6, 7], sampling=SamplingParams(max_tokens=4))

    async def go() -> None:
        player = engine_player.EnginePlayer(recipe, loaded)
        await player.update_weights(loaded.model.state_dict(), 3)
        shake(loaded.model, 0.5)
        await player.update_weights(loaded.model.state_dict(), 4)
        handed, before = adapter(loaded.model), await player._supervised.generate(request)
        shake(loaded.model, 1.0)  # the update goes on meanwhile
        await served[-1].close()
        assert await player._supervised.generate(request) == before
        assert player.restarts == 1
        assert served[-1].options.lora_rank == 2
        assert adapter(served[-1].model) == handed != adapter(loaded.model)
        await served[-1].close()
        await player.update_weights(loaded.model.state_dict(), 5)  # a hand-over finds it dead
        assert adapter(served[-1].model) == adapter(loaded.model)
        assert player._engine is not None
        assert player._engine.weight_version == 5
        await player.close()

    asyncio.run(go())


@torch.no_grad()
def shake(model: Any, size: float) -> None:
    for parameter in own_weights(model).values():
        parameter.add_(torch.randn_like(parameter) * size)


def adapter(model: Any) -> bytes:
    return fingerprint(own_weights(model))


def test_adapters_are_handed_over_in_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leave engine\.transfer at file"):
        train(levers_recipe(prepared(tmp_path), *PLAIN, "engine.transfer=nccl", "model.lora.rank=2"))
