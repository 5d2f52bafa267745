"""vLLM in this process, as far as that can be told without it."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from palaestra.agents.engines.vllm import local
from palaestra.agents.engines.vllm.local import LocalTransport
from palaestra.agents.engines.vllm.options import VLLMOptions


def test_a_vllm_that_nobody_waits_for_any_more_is_shut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class AsyncLLM:
        @classmethod
        def from_engine_args(cls, arguments: Any) -> "AsyncLLM":
            begun.set()
            go_on.wait(10)
            return cls()

        def shutdown(self) -> None:
            ended.set()

    made = {"engine.arg_utils": ("AsyncEngineArgs", dict), "v1.engine.async_llm": ("AsyncLLM", AsyncLLM)}
    for name, what in made.items():
        module = ModuleType(f"vllm.{name}")
        setattr(module, *what)
        monkeypatch.setitem(sys.modules, f"vllm.{name}", module)
    for name in ("vllm", "vllm.engine", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(local, "require", lambda *names: None)
    monkeypatch.setattr(os, "environ", {})

    async def interrupted() -> None:
        starting = asyncio.create_task(LocalTransport(VLLMOptions(folder=tmp_path)).start())
        await asyncio.to_thread(begun.wait, 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not ended.is_set()
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 10)

    asyncio.run(interrupted())
