"""The engine over a transport that is scripted: what it does where vLLM fails, or somebody gives up."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palaestra.agents.engines.base import Completion, Request, SamplingParams
from palaestra.agents.engines.supervised import SupervisedEngine
from palaestra.agents.engines.vllm import engine as engine_module
from palaestra.agents.engines.vllm.adapters import Adapters
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.transport import Adapter, Raw
from palaestra.errors import EngineError


class FakeTransport:
    """Notes what it is asked. A call that `hooks` names waits for that first; completions wait until `go`."""

    context_length = 64

    def __init__(self) -> None:
        self.log: list[str] = []
        self.hooks: dict[str, Callable[[], Awaitable[None]]] = {}
        self.go = asyncio.Event()

    async def _did(self, name: str) -> None:
        self.log.append(name)
        if name in self.hooks:
            await self.hooks[name]()

    async def start(self) -> None:
        await self._did("start")

    async def sample(self, prompt: list[int], params: Mapping[str, Any], *, salt: str, adapter: Adapter | None) -> Raw:
        await self._did("sample")
        await self.go.wait()
        return Raw(ids=[7], logprobs=[-1.0], finish="stop")

    async def call(self, method: str, *arguments: str) -> list[Any]:
        await self._did(method)
        return [{"rows": {}, "failure": ""}]

    async def pause(self) -> None:
        await self._did("pause")
        await self._did("reset")

    async def resume(self) -> None:
        await self._did("resume")

    async def label(self, label: str) -> None:
        await self._did(f"label {label}")

    async def transfer(self, step: str, body: Mapping[str, Any]) -> None:
        await self._did(step)

    async def add_adapter(self, adapter: Adapter) -> None:
        await self._did(f"add {adapter.name.partition('.')[0]}")

    async def remove_adapter(self, adapter: Adapter) -> None:
        await self._did(f"remove {adapter.name.partition('.')[0]}")

    async def close(self) -> None:
        await self._did("close")


ASKED = Request(prompt=[1, 2], sampling=SamplingParams(max_tokens=4, stop_ids=(7,)))
FOLDER = Path("weights")
Script = Callable[[VLLMEngine, FakeTransport], Coroutine[Any, Any, None]]


def run(script: Script) -> FakeTransport:
    """Play the script with an engine that has started; its transport."""

    async def go() -> FakeTransport:
        transport = FakeTransport()
        engine = await VLLMEngine(transport, FOLDER).start()
        await asyncio.wait_for(script(engine, transport), 20)
        return transport

    return asyncio.run(go())


async def fail() -> None:
    raise EngineError("it died")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def until(transport: FakeTransport, name: str) -> None:
    while name not in transport.log:
        await asyncio.sleep(0)


async def sampling(engine: Any, transport: FakeTransport) -> asyncio.Task[Completion]:
    task = asyncio.create_task(engine.generate(ASKED))
    await until(transport, "sample")
    return task


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_completion_is_cancelled_whatever_vllm_says() -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        transport.hooks = {"palaestra_forget": fail, "remove palaestra@1": fail}

        async def start(version: int) -> VLLMEngine:
            return engine

        supervised = SupervisedEngine(start)
        await supervised.open(0)
        await engine.update_adapter(FOLDER, 1)
        task = await sampling(supervised, transport)
        await engine.update_adapter(FOLDER, 2)
        await cancelled(task)
        assert supervised.restarted == 0

    assert run(script).log.count("sample") == 1


@pytest.mark.parametrize("failing", ["start", "label 0"])
def test_a_start_that_fails_leaves_nothing_open(failing: str) -> None:
    async def go() -> list[str]:
        transport = FakeTransport()
        transport.hooks[failing] = fail
        with pytest.raises(EngineError, match="it died"):
            await VLLMEngine(transport, FOLDER).start()
        return transport.log

    assert asyncio.run(go())[-1] == "close"


@pytest.mark.parametrize("failing", ["palaestra_reload", "label 1"])
def test_half_of_new_weights_samples_nothing(failing: str) -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        transport.hooks[failing] = fail
        task = await sampling(engine, transport)
        with pytest.raises(EngineError, match="half of new weights"):
            await engine.reload(FOLDER, 1)
        transport.go.set()
        with pytest.raises(EngineError, match="half of new weights"):
            await task
        with pytest.raises(EngineError, match="half of new weights"):
            await engine.generate(ASKED)

    assert "resume" not in run(script).log


def test_who_waited_for_weights_that_failed_is_told() -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        arrived = asyncio.Event()

        async def later() -> None:
            await arrived.wait()
            raise EngineError("it died")

        transport.hooks["palaestra_reload"] = later
        reload = asyncio.create_task(engine.reload(FOLDER, 1))
        await until(transport, "palaestra_reload")
        task = asyncio.create_task(engine.generate(ASKED))
        await asyncio.sleep(0)
        arrived.set()
        for each in (reload, task):
            with pytest.raises(EngineError, match="half of new weights"):
                await each

    assert "sample" not in run(script).log


def test_a_hand_over_cancelled_half_way_breaks_the_engine() -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        transport.hooks["palaestra_reload"] = for_ever
        reload = asyncio.create_task(engine.reload(FOLDER, 1))
        await until(transport, "palaestra_reload")
        await cancelled(reload)
        with pytest.raises(EngineError, match="cancelled"):
            await engine.generate(ASKED)

    run(script)


def test_a_hand_over_cancelled_while_it_pauses_resumes() -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        transport.hooks["reset"] = for_ever
        update = asyncio.create_task(engine.update_weights({}, 1))
        await until(transport, "reset")
        await cancelled(update)
        transport.go.set()
        assert (await engine.generate(ASKED)).ids == [7]

    assert run(script).log[3:5] == ["reset", "resume"]


def test_an_adapter_that_new_weights_replace_is_unloaded() -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        await engine.update_adapter(FOLDER, 1)
        await engine.update_weights({}, 2)  # a new version of the same
        assert "remove palaestra@1" not in transport.log
        await engine.reload(FOLDER, 3)

    assert run(script).log[-2:] == ["resume", "remove palaestra@1"]


class Config:
    """Stands for peft's `LoraConfig`."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")


LORA = "model.layers.0.q_proj.lora_A.default.weight"


def adapted(value: float) -> dict[str, torch.Tensor]:
    """Weights of a model with one adapter."""
    return {LORA: torch.full((1, 2), value), "model.layers.0.q_proj.base_layer.weight": torch.ones(2, 2)}


def test_adapters_alone_are_handed_over_and_the_old_ones_go(tmp_path: Path) -> None:
    adapters = Adapters(tmp_path, Config())

    def files() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    async def go() -> list[str]:
        transport = FakeTransport()
        engine = await VLLMEngine(transport, FOLDER, adapters=adapters).start()
        await engine.update_weights(adapted(1.0), 1)
        before = await sampling(engine, transport)
        await engine.update_weights(adapted(2.0), 2)
        assert files() == ["1.1", "2.2"], "the first is still in use"
        transport.go.set()
        assert (await before).weight_version == 1
        assert files() == ["2.2"]
        assert engine.weight_version == 2
        await engine.close()
        return transport.log

    log = asyncio.run(go())
    assert [each for each in log if "@" in each] == [
        *("add palaestra@1", "add palaestra@2", "remove palaestra@1", "remove palaestra@2"),
    ]
    assert files() == ["2.2"], "for the engine that takes its place"
    (written,) = load_file(tmp_path / "2.2" / "adapter_model.safetensors").items()
    assert written[0] == "base_model.model.model.layers.0.q_proj.lora_A.weight"
    assert written[1].tolist() == [[2.0, 2.0]]
    adapters.clear()
    assert not tmp_path.exists()


def test_names_of_adapters_are_those_of_nobody_else() -> None:
    async def names() -> list[str]:
        found: list[str] = []

        class Noting(FakeTransport):
            async def add_adapter(self, adapter: Adapter) -> None:
                found.append(adapter.name)

        for _ in range(2):
            engine = await VLLMEngine(Noting(), FOLDER).start()
            await engine.update_adapter(FOLDER, 3)
            await engine.update_adapter(FOLDER, 3)
        return found

    assert len(set(asyncio.run(names()))) == 4


def test_a_vllm_that_does_not_answer_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "LEAVING_SECONDS", 0.05)

    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        transport.hooks["remove palaestra@1"] = for_ever
        await engine.update_adapter(FOLDER, 1)
        await engine.close()

    assert run(script).log[-1] == "close"


@pytest.mark.parametrize("first", ["adapter", "none"])
def test_completions_with_and_without_an_adapter_are_kept_apart(first: str) -> None:
    async def script(engine: VLLMEngine, transport: FakeTransport) -> None:
        if first == "adapter":
            await engine.update_adapter(FOLDER, 1)
        before = await sampling(engine, transport)
        change = engine.reload(FOLDER, 2) if first == "adapter" else engine.update_adapter(FOLDER, 2)
        changing = asyncio.create_task(change)
        for _ in range(20):
            await asyncio.sleep(0)
        assert transport.log[-1] == "sample", "it waits"
        transport.go.set()
        assert (await before).weight_version == (first == "adapter")
        await changing
        assert (await engine.generate(ASKED)).weight_version == 2

    run(script)
