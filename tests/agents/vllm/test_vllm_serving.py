"""How a vLLM server is started, who is let in, and the weights that it reads."""

import asyncio
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from support.endpoints import Asked, endpoint

from palaestra.agents.engines.vllm import served as served_module
from palaestra.agents.engines.vllm import server as server_module
from palaestra.agents.engines.vllm.checkpoint import (
    EMBEDDING,
    HEAD,
    WEIGHTS,
    check_weights,
    copy_weights,
    shapes,
    write_weights,
)
from palaestra.agents.engines.vllm.door import KEY, Door
from palaestra.agents.engines.vllm.options import VLLMOptions, largest_rank
from palaestra.agents.engines.vllm.sender import Sender
from palaestra.agents.engines.vllm.served import ServedTransport
from palaestra.agents.engines.vllm.server import VLLMServer, flags
from palaestra.envs.isolation.interpreters import package_folder
from palaestra.errors import CheckpointError, ConfigError, EngineError


def test_arguments_become_flags() -> None:
    arguments = {"enforce_eager": True, "enable_lora": False, "hf_overrides": {"a": 1}, "logits_processors": ["x:Y"]}
    assert flags(arguments) == [
        *("--enforce-eager", "--no-enable-lora", "--hf-overrides", '{"a": 1}', "--logits-processors", "x:Y"),
    ]


def test_each_device_has_the_processor_of_its_runner(tmp_path: Path) -> None:
    told = {device: VLLMOptions(folder=tmp_path, device=device).arguments() for device in ("cpu", "cuda")}  # type: ignore[arg-type]
    assert [told[d]["logits_processors"][0].split(":")[0][-2:] for d in ("cpu", "cuda")] == ["v1", "v2"]
    assert "kv_cache_memory_bytes" in told["cpu"]
    assert "gpu_memory_utilization" in told["cuda"]
    sparse = VLLMOptions(folder=tmp_path, device="cuda", transfer="sparse_nccl").arguments()
    assert sparse["weight_transfer_config"] == {"backend": "sparse_nccl"}


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/health", "", 401),
        ("/collective_rpc", "wrong", 401),
        ("/v1/models", "", 401),
        ("/collective_rpc", "right", 200),
    ],
)
def test_the_door(path: str, key: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "right")
    said: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    asyncio.run(Door(app)({"type": "http", "path": path, "headers": headers}, None, send))
    assert said[0]["status"] == status


def test_the_key_is_on_no_command_line(tmp_path: Path) -> None:
    server = VLLMServer(VLLMOptions(folder=tmp_path), tmp_path / "log")
    assert server.key not in " ".join(server.command())
    assert server.key not in repr(server)
    assert server._environ({})[KEY] == server.key


def test_a_key_of_the_users_does_not_lock_us_out(tmp_path: Path) -> None:
    server = VLLMServer(VLLMOptions(folder=tmp_path), tmp_path / "log")
    assert server._environ({"VLLM_API_KEY": "other"})["VLLM_API_KEY"] == server.key


def test_packages_of_the_users_do_not_reach_the_interpreter_that_we_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setattr(server_module, "find_spec", lambda name: None)
    monkeypatch.setattr(server_module, "python_of", lambda name: f"/built/{name}/python")
    server = VLLMServer(VLLMOptions(folder=tmp_path), tmp_path / "log")
    python, base = server._interpreter()
    environ = server._environ(base)
    assert python == "/built/vllm/python"
    assert (environ["PYTHONPATH"], environ["PYTHONNOUSERSITE"]) == (package_folder(), "1")
    server.python = "/other/python"
    python, base = server._interpreter()
    assert (python, base["PYTHONPATH"]) == ("/other/python", os.pathsep.join([package_folder(), "/mine"]))


@pytest.mark.parametrize("body", ["{}", '{"data": []}', '{"data": [{"id": "m"}]}', "hello"])
def test_a_server_of_another_kind(body: str) -> None:
    async def handler(asked: Asked) -> web.StreamResponse:
        kind = "text/plain" if body == "hello" else "application/json"
        return web.Response(text="" if asked.path == "/health" else body, content_type=kind)

    async def go(url: str) -> None:
        transport = ServedTransport(url)
        with pytest.raises(EngineError, match="does not answer as vLLM does"):
            await transport.start()
        assert transport._http.closed

    with endpoint(handler) as served:
        asyncio.run(go(served.url.removesuffix("/v1")))


def test_a_server_that_keeps_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_module, "HEALTH_SECONDS", 0.2)

    async def handler(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(20)
        return web.Response()

    with endpoint(handler) as served, pytest.raises(EngineError, match="there is no vLLM server at"):
        asyncio.run(ServedTransport(served.url.removesuffix("/v1")).start())


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'raise SystemError(\"no such model\")'\n")
    python.chmod(0o755)
    server = VLLMServer(VLLMOptions(folder=tmp_path), tmp_path / "log", str(python))
    with pytest.raises(EngineError, match=r"vLLM does not start: SystemError: no such model; its log is"):
        asyncio.run(ServedTransport(server=server).start())
    with pytest.raises(EngineError, match="cannot start"):
        asyncio.run(ServedTransport(server=VLLMServer(server.options, server.log, str(tmp_path / "none"))).start())


def test_a_server_is_ended_with_all_it_started(tmp_path: Path) -> None:
    python, told = tmp_path / "python", tmp_path / "pid"
    python.write_text(
        f"#!/bin/sh\ntrap '' TERM\nsleep 60 &\necho $! > {told}.new; mv {told}.new {told}\nwait\nsleep 60\n"
    )
    python.chmod(0o755)
    server = VLLMServer(VLLMOptions(folder=tmp_path), tmp_path / "log", str(python))

    async def go() -> None:
        await server.start()
        for _ in range(600):
            if told.exists():
                break
            await asyncio.sleep(0.05)
        await server.stop()

    asyncio.run(go())
    child = Path(f"/proc/{told.read_text().strip()}/stat")
    for _ in range(600):  # a kill takes its time where many processes want the processor
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    assert not child.exists() or child.read_text().split()[2] == "Z"
    assert server.ended is None


def test_a_tied_head_is_written_out(tmp_path: Path) -> None:
    embedding = torch.randn(4, 3)
    write_weights(tmp_path, {EMBEDDING: embedding, HEAD: embedding, "model.norm.weight": torch.ones(3)})
    assert shapes(tmp_path) == {EMBEDDING: [4, 3], HEAD: [4, 3], "model.norm.weight": [3]}
    write_weights(tmp_path, {EMBEDDING: embedding})
    assert shapes(tmp_path) == {EMBEDDING: [4, 3], HEAD: [4, 3]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    own = {EMBEDDING: torch.randn(4, 3), "model.norm.weight": torch.ones(3)}
    write_weights(tmp_path, own)
    check_weights(tmp_path, own)
    check_weights(tmp_path, {**own, HEAD: torch.zeros(4, 3)})
    with pytest.raises(CheckpointError, match=r"model.norm.weight has shape \[2\], the model's has \[3\]"):
        check_weights(tmp_path, {**own, "model.norm.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"unknown \['x'\], missing \['model.norm.weight'\]"):
        check_weights(tmp_path, {EMBEDDING: own[EMBEDDING], "x": torch.ones(1)})
    with pytest.raises(CheckpointError, match="no safetensors"):
        shapes(tmp_path / "nothing")


def test_weights_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot write weights for vLLM to .*nothing: .*name a folder elsewhere"):
        write_weights(tmp_path / "nothing", {"x": torch.ones(1)})


def test_a_disk_that_is_full_when_weights_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    write_weights(source, {"x": torch.ones(1)})
    copy_weights(source, folder)
    before = (folder / WEIGHTS).read_bytes()

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(EngineError, match=r"to .*folder: No space left on device; make room there, or name a folder"):
        copy_weights(source, folder)
    assert [path.name for path in folder.iterdir()] == [WEIGHTS]
    assert (folder / WEIGHTS).read_bytes() == before


def test_ranks_that_vllm_takes(tmp_path: Path) -> None:
    assert [largest_rank(rank) for rank in (1, 2, 8, 9, 512)] == [1, 8, 8, 16, 512]
    with pytest.raises(ConfigError, match="up to rank 512, and model.lora.rank is 513"):
        VLLMOptions(folder=tmp_path, lora_rank=513).arguments()


def test_transfers_between_gpus_want_one() -> None:
    with pytest.raises(ConfigError, match="engine.transfer=nccl sends from a GPU, and the model is on cpu"):
        Sender(ServedTransport(), "nccl", torch.nn.Linear(2, 2), workers=1)
    with pytest.raises(ConfigError, match="use file or one of nccl, ipc, sparse_nccl"):
        Sender(ServedTransport(), "smoke", torch.nn.Linear(2, 2), workers=1)


def test_adapters_and_trees_of_arguments_are_json(tmp_path: Path) -> None:
    arguments = VLLMOptions(folder=tmp_path, lora_rank=8, extra={"seed": 3}).arguments()
    assert json.loads(json.dumps(arguments))["max_lora_rank"] == 8
    assert arguments["seed"] == 3
    assert os.fspath(tmp_path) == arguments["model"]
