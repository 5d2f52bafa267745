"""`vllm serve` in an interpreter of its own, started and used from here: one start for everything it shows."""

import asyncio
import copy
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.vllm_models import smollm2, vllm_python

from palaestra.agents.constraint import TokenTrie
from palaestra.agents.engines.base import Engine, Request, SamplingParams
from palaestra.agents.engines.vllm.adapters import Adapters
from palaestra.agents.engines.vllm.checkpoint import write_checkpoint
from palaestra.agents.engines.vllm.engine import VLLMEngine
from palaestra.agents.engines.vllm.options import VLLMOptions
from palaestra.agents.engines.vllm.served import ServedTransport
from palaestra.agents.engines.vllm.server import VLLMServer
from palaestra.cli.recipes import find_recipe
from palaestra.config import LoraConfig, load_recipe
from palaestra.envs.tasks import load_suite
from palaestra.errors import EngineError, TrainingError
from palaestra.training.engine_player import EnginePlayer
from palaestra.training.lora import NAME, add_lora, own_weights
from palaestra.training.parity import ProbedEngine, check_parity, measured

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

STOP = 2
PLAY = [
    "agent.action=choice",
    "agent.max_tokens=12",
    "tasks.max_turns=2",
    "agent.context=window",
    "agent.window_turns=1",
]


def ask(prompt: list[int], max_tokens: int = 8, constraint: TokenTrie | None = None, **changes: Any) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, stop_ids=(STOP,), **changes)
    return Request(prompt=prompt, sampling=sampling, constraint=constraint)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one server showed. Its model keeps its output head tied to the embedding, as most small ones have it."""
    python, folder = vllm_python(), tmp_path_factory.mktemp("vllm")
    for name in ("model", "exchange"):
        write_checkpoint(folder / name, smollm2())
    options = VLLMOptions(
        folder=folder / "model", context_length=512, slots=16, cache_gib=0.5, untie=False, lora_rank=4
    )
    server = VLLMServer(options, folder / "log", python)
    transport = ServedTransport(server=server)
    engine = VLLMEngine(transport, folder / "model", exchange=folder / "exchange")
    found: dict[str, Any] = {"log": folder / "log"}
    try:
        asyncio.run(play(engine, transport, server, found))
    except EngineError as error:
        pytest.fail(f"{error}\n{(folder / 'log').read_text()[-4000:]}")
    return found


async def play(engine: VLLMEngine, transport: ServedTransport, server: VLLMServer, found: dict[str, Any]) -> None:
    model = smollm2().model
    began = time.perf_counter()
    await engine.start()
    found["start seconds"] = time.perf_counter() - began
    try:
        found["is engine"] = isinstance(engine, Engine), engine.context_length
        requests = [ask([5 + k, 600, 31, 9 * k + 4], 3 + k, seed=k) for k in range(6)]
        answers = await asyncio.gather(*map(engine.generate, requests))
        found["answers"], found["parity"] = answers, measured(model, requests, answers)
        trie = TokenTrie([[5, 600, STOP], [5, 7, 9, STOP], [800, STOP]])
        found["constrained"] = [await engine.generate(ask([5, 6], seed=seed, constraint=trie)) for seed in range(2)]
        cut = ask([9, 8, 7], seed=4, top_k=2)
        found["cut"] = measured(model, [cut], [await engine.generate(cut)])
        found["open doors"] = [await opened(server, path) for path in ("/collective_rpc", "/v1/models", "/pause")]
        await hand_over(engine, model, found["log"].parent, found)
        await let_a_player_use(server, found)
        if find_spec("peft"):
            await swap_adapters(engine, server, found["log"].parent, found)
        found["alive"] = server.ended
        found["process"] = server._process
    finally:
        await engine.close()
    found["closed"] = found["process"].returncode
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(ask([5]))


async def swap_adapters(engine: VLLMEngine, server: VLLMServer, folder: Path, found: dict[str, Any]) -> None:
    """Two versions of an adapter, as training writes them, then none; each is compared with the model that has it. The
    server's weights are the ones that it began with again."""
    model: Any = copy.deepcopy(smollm2().model)
    add_lora(model, LoraConfig(rank=4), 0)
    adapters = Adapters(folder / "adapters", model.peft_config[NAME])
    request, found["adapters"] = ask([5, 600, 31], 4, seed=3), []
    for version in (11, 12):
        shake([*own_weights(model).values()], 0.02)
        await engine.update_adapter(adapters.write(model.state_dict(), version), version)
        answer = await engine.generate(request)
        parity = measured(model, [request], [answer]), measured(smollm2().model, [request], [answer])
        found["adapters"].append((*parity, answer.weight_version, await models(server)))
    found["alone"] = await leave_adapters(engine, model, folder / "model")
    found["models in the end"] = await models(server)


async def leave_adapters(engine: VLLMEngine, adapted: Any, folder: Path) -> list[Any]:
    """Weights are handed over while a completion with an adapter is under way: what comes next has none, nor any of
    that one's."""
    long = ask([5, 600, 31], 64, seed=4)
    task = asyncio.create_task(engine.generate(long))
    await asyncio.sleep(0.3)
    await engine.reload(folder, 13)
    requests = [ask([7 + k, 600, 31], 4, seed=k) for k in range(3)]
    after, before = await asyncio.gather(*map(engine.generate, requests)), await task
    parity = measured(adapted, [long], [before]), measured(smollm2().model, requests, after)
    return [before.weight_version, before.versions, after[0].weight_version, *map(max, parity)]


async def models(server: VLLMServer) -> list[str]:
    """What the server offers: its model and its adapters."""
    import aiohttp

    headers = {"Authorization": f"Bearer {server.key}"}
    async with aiohttp.ClientSession(headers=headers) as ours, ours.get(server.url + "/v1/models") as answer:
        return [each["id"].partition(".")[0] for each in (await answer.json())["data"]]


async def hand_over(engine: VLLMEngine, model: Any, folder: Path, found: dict[str, Any]) -> None:
    """New weights: of the layers, in the middle of a completion, then of the embedding, to which the head is tied: as
    most files have them, where vLLM's head stays behind, and as we write them."""
    probed = ProbedEngine(engine, model, tolerance=1e-3)
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    try:
        shake([p for name, p in model.named_parameters() if "layers" in name])
        long = Request(prompt=[5, 6, 7], sampling=SamplingParams(max_tokens=200, seed=3))  # outlasts the hand-over
        task = asyncio.create_task(engine.generate(long))
        await asyncio.sleep(0.5)
        await probed.update_weights(model.state_dict(), 7)
        found["layers"], found["in flight"] = probed.parity, await task
        shake([model.get_input_embeddings().weight])
        headless = folder / "headless"
        headless.mkdir()
        save_file(dict(model.named_parameters()), headless / "model.safetensors")  # a tied head has no name of its own
        await engine.reload(headless, 8)
        try:
            await check_parity(engine, model, tolerance=1e-3)
        except TrainingError as error:
            found["tied"] = str(error)
        await probed.update_weights(model.state_dict(), 8)
        found["headed"] = probed.parity
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(kept[name])


async def let_a_player_use(server: VLLMServer, found: dict[str, Any]) -> None:
    """The player of a recipe that names the running server; its weights are the ones that it began with again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PALAESTRA_VLLM_KEY", server.key)
        changes = [f"engine.url={server.url}", "engine.kind=vllm-server", "engine.context=512"]
        player = EnginePlayer(load_recipe(find_recipe("demo"), [*changes, *PLAY]), smollm2())
        try:
            suite = load_suite("alfworld/small:test")
            found["played"] = await player.evaluate(suite, 2, name="small", version=9)
            found["player"] = player._engine.weight_version, player._engine.parity
            await player.update_weights(smollm2().model.state_dict(), 10)
            found["handed"] = (
                (await player.evaluate(suite, 1, name="small", version=9)).n,
                player._engine.weight_version,
            )
        finally:
            await player.close()


def shake(parameters: list[torch.Tensor], size: float | None = None) -> None:
    """By noise of a tenth of their own size where none is given."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (size or 0.1 * parameter.std()))


async def opened(server: VLLMServer, path: str) -> int:
    import aiohttp

    async with aiohttp.ClientSession() as stranger, stranger.post(server.url + path, json={}) as answer:
        return answer.status


def test_it_says_what_the_learner_says(seen: dict[str, Any]) -> None:
    assert seen["is engine"] == (True, 512)
    assert max(seen["parity"]) <= 1e-4
    for answer in seen["answers"]:
        assert len(answer.ids) == len(answer.logprobs) == len(answer.entropies) >= 1
        assert (answer.weight_version, answer.versions) == (0, None)


def test_constraints_and_cuts_are_exact(seen: dict[str, Any]) -> None:
    for answer in seen["constrained"]:
        assert answer.finish == "stop"
        assert answer.ids in ([5, 600, STOP], [5, 7, 9, STOP], [800, STOP])
        assert answer.allowed is not None
        assert answer.allowed[0] == [5, 800]
    assert max(seen["cut"]) <= 1e-4


def test_strangers_are_not_let_in(seen: dict[str, Any]) -> None:
    assert seen["open doors"] == [401, 401, 401]


def test_adapters_are_swapped_under_a_name_per_version(seen: dict[str, Any]) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'palaestra[lora]'")
    assert [(version, names) for _, _, version, names in seen["adapters"]] == [
        (11, ["policy", "palaestra@11"]),
        (12, ["policy", "palaestra@12"]),
    ]
    for parity, without, *_ in seen["adapters"]:
        assert max(parity) <= 1e-4
        assert max(without) > 0.01
    assert seen["models in the end"] == ["policy"]
    *versions, before, after = seen["alone"]
    assert versions == [12, None, 13]
    assert max(before, after) <= 1e-4


def test_new_weights_in_the_middle_of_a_served_completion(seen: dict[str, Any]) -> None:
    assert max(seen["layers"]) <= 1e-4
    versions = seen["in flight"].versions
    assert versions == sorted(versions)
    assert set(versions) == {0, 7}


def test_the_probe_finds_an_output_head_that_stayed_behind(seen: dict[str, Any]) -> None:
    assert "engine and learner disagree on the same tokens under weights 8" in seen["tied"]
    assert max(seen["headed"]) <= 1e-4


def test_a_recipe_plays_on_a_server_that_runs(seen: dict[str, Any]) -> None:
    assert seen["played"].n == 2
    assert seen["played"].statuses == {"ok": 2}
    assert seen["player"][0] == 9
    assert max(seen["player"][1]) <= 1e-4
    assert seen["handed"] == (1, 10)


def test_it_ends_with_us(seen: dict[str, Any]) -> None:
    assert seen["alive"] is None
    assert seen["closed"] is not None


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(EngineError, match="there is no vLLM server at http://127.0.0.1:9"):
        asyncio.run(ServedTransport("http://127.0.0.1:9").start())


def test_the_probe_compares_any_engine() -> None:
    from palaestra.agents.engines.torch_engine import TorchEngine

    model = smollm2().model
    parity = asyncio.run(check_parity(TorchEngine(model, slots=4), model, tolerance=1e-3))
    assert max(parity) <= 1e-4
