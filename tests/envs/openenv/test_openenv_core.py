"""The real openenv-core, in an interpreter of its own: its client on our server, ours on its server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.foreign_python import python_with

from palaestra.envs import registry
from palaestra.envs.checks.supervisor import supervised
from palaestra.envs.core import Env, Reset, Step
from palaestra.envs.isolation.server import ServerSettings
from palaestra.envs.openenv.server import OpenEnvServer
from palaestra.envs.registry import make, register, spec
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import EnvError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SCRIPTS = Path(__file__).parents[2] / "support" / "openenv_core"


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("openenv-core==0.3.0")


@contextmanager
def their_server(python: Path, script: str, folder: Path) -> Iterator[str]:
    """The address of a server of theirs."""
    log = (folder / "log").open("wb")
    process = subprocess.Popen([python, SCRIPTS / script, folder], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while not (folder / "port").exists():
            waiting = process.poll() is None and time.monotonic() < end
            assert waiting, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{(folder / 'port').read_text()}"
    finally:
        process.kill()
        process.wait()
        log.close()


async def theirs(python: Path, script: str, *arguments: str, stdin: str = "") -> Any:
    """What a program of theirs prints, as JSON."""
    process = await asyncio.create_subprocess_exec(
        python, SCRIPTS / script, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said, complaint = await asyncio.wait_for(process.communicate(stdin.encode()), 120)
    assert process.returncode == 0, complaint.decode()[-3000:]
    return json.loads(said)


def test_our_client_plays_on_their_server(python: Path, tmp_path: Path) -> None:
    async def play(url: str) -> None:
        async with make("openenv/Remote-v0", url=url) as env:
            first = await env.reset(seed=7)
            assert first.observation == "ready 7"
            assert first.info["observation"] == {"echoed": "ready 7", "length": 0}
            assert (await env.step("hëllo\u2028\U0001f600")).observation == "hëllo\u2028\U0001f600"
            step = await env.step('{"message": "good"}')
            assert step[:4] == ("good", 1.0, False, False)
            last = await env.step({"role": "assistant", "content": "bye"})
            assert (last.observation, last.terminated, last.truncated) == ("bye", True, False)
            assert last.info["success"]
            task = Task(env="openenv/Remote-v0", name="a", seed=3, params={"reset": {"greeting": "hi"}})
            assert (await env.reset(seed=3, task=task)).observation == "hi 3"
            refused = await env.step({"nonsense": 1})
            assert refused.info["invalid"]
            assert not refused.terminated
            wrong = await env.step('{"message": 5}')  # their validation says no
            assert wrong.info["invalid"]
            assert "string" in wrong.observation
            with pytest.raises(EnvError, match="it was asked to fail"):
                await env.step("fail")
            assert (await env.reset(seed=4)).observation == "ready 4"

    with their_server(python, "echo_server.py", tmp_path) as url:
        asyncio.run(play(url))


def test_their_server_keeps_our_contract_through_our_client(python: Path, tmp_path: Path) -> None:
    with their_server(python, "echo_server.py", tmp_path) as url:
        here = msgspec.structs.replace(spec("openenv/Remote-v0"), kwargs={"url": url})
        report = supervised(here, episodes=2, max_steps=10)
    assert report.ok, str(report)
    assert report.determinism == "exact"


def test_our_client_calls_the_tools_of_their_server(python: Path, tmp_path: Path) -> None:
    async def play(url: str) -> None:
        async with make("openenv/Remote-v0", url=url) as env:
            await env.reset(seed=7)
            assert [tool["function"]["name"] for tool in env.tools()] == ["add"]
            call = {"function": {"name": "add", "arguments": '{"a": 2, "b": 40}'}}
            step = await env.step({"role": "assistant", "content": "", "tool_calls": [call]})
            assert "42" in step.observation
            assert step.info["tool"] == {"name": "add", "ok": True}
            assert "42" in (await env.step('<add>{"a": 1, "b": 41}</add>')).observation
            assert (await env.step("I would rather talk")).info["invalid"]
            failed = await env.step("<add>two and two</add>")
            assert failed.info["tool"] == {"name": "add", "ok": False}

    with their_server(python, "tool_server.py", tmp_path) as url:
        asyncio.run(play(url))


def test_their_client_plays_our_household_tasks(python: Path) -> None:
    """Solved by our oracle's commands, and the same texts as without a server between."""

    async def play() -> None:
        task = load_suite("alfworld:test")[3]
        commands, texts = [], []
        async with make(task.env) as env:
            texts.append((await env.reset(seed=task.seed, task=task)).observation)
            done = False
            while not done:
                commands.append(await env.oracle())
                step = await env.step(commands[-1])
                texts.append(step.observation)
                done = step.terminated
        order = {"reset": {"suite": "alfworld:test", "index": 3}, "actions": [{"message": c} for c in commands]}
        async with OpenEnvServer(["alfworld/Household-v0"], ServerSettings(port=0)) as server:
            for url in (server.url, f"{server.url}/alfworld/Household-v0"):
                told = await theirs(python, "player.py", url, stdin=json.dumps(order))
                assert [observation["text"] for observation, _, _ in told["got"]] == texts
                assert "look" in told["got"][0][0]["admissible_commands"]
                assert [done for _, _, done in told["got"]] == [False] * len(commands) + [True]
                assert told["got"][-1][1] == 1.0
                assert told["got"][-1][0]["success"] is True
                assert told["state"]["step_count"] == len(commands)
            assert server.sessions == 0

    asyncio.run(play())


def test_their_validation_passes_our_server_and_the_token_may_stand_in_the_address(python: Path) -> None:
    async def look() -> None:
        async with OpenEnvServer(["alfworld/Household-v0"], ServerSettings(port=0)) as server:
            report = await theirs(python, "validator.py", server.url)
            assert report["passed"], report
            assert report["mode"] == "simulation"
        token = "a-token-that-is-long-enough"
        async with OpenEnvServer(["alfworld/Household-v0"], ServerSettings(port=0, token=token)) as server:
            url = server.url.replace("http://", f"http://any:{token}@")
            told = await theirs(python, "player.py", url, stdin=json.dumps({"reset": {"seed": 1}, "actions": []}))
            assert told["got"][0][2] is False
            with pytest.raises(AssertionError, match="401"):
                await theirs(python, "player.py", server.url, stdin=json.dumps({"reset": {}, "actions": []}))

    asyncio.run(look())


class Library(Env[Any, Any]):
    """Has a tool."""

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[Any]:
        return Reset("Who wrote it?", {})

    async def step(self, action: Any) -> Step[Any]:
        call = action["tool_calls"][0]["function"] if isinstance(action, dict) else {"arguments": "nothing"}
        return Step(f"found {call['arguments']}", 0.5, False, False, {"tool": {"name": "search", "ok": True}})

    def tools(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"query": {"type": "string"}}}
        return [{"type": "function", "function": {"name": "search", "description": "Look up.", "parameters": schema}}]


def test_their_client_of_tools_calls_ours(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    register("test/Library-v0", Library)

    async def call() -> None:
        async with OpenEnvServer(["test/Library-v0"], ServerSettings(port=0)) as server:
            told = await theirs(python, "tool_player.py", server.url, "search", '{"query": "Iliad"}')
            assert [tool["name"] for tool in told["tools"]] == ["search"]
            assert told["result"] == 'found {"query": "Iliad"}'

    asyncio.run(call())


def test_the_command_serves_openenv(python: Path) -> None:
    serve = ["serve", "alfworld/Household-v0", "--protocol", "openenv", "--port", "0"]
    command = [sys.executable, "-m", "palaestra", *serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split(" at ")[1].split()[0]
            told = asyncio.run(theirs(python, "player.py", url, stdin='{"reset": {"seed": 5}, "actions": []}'))
            assert "Your task" in told["got"][0][0]["text"]
        finally:
            process.terminate()
