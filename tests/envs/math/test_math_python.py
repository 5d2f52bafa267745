"""Problems with an interpreter: the contract, an episode, and where the code runs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.math.python import PythonEnv
from palaestra.envs.tasks import Task, load_suite
from palaestra.errors import EnvError

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed: apt-get install bubblewrap", allow_module_level=True)

pytestmark = pytest.mark.integration
ID = "math/Python-v0"
TASK = Task(env=ID, name="t", params={"problem": "6 * 7?", "answer": "42", "judge": "exact", "max_turns": 3})


def test_it_keeps_the_contract() -> None:
    def choose(info: Any, generator: Any) -> str:
        return generator.choice(("<python>x = 6\nx * 7</python>", "hm", "<python>x / 0</python>", r"\boxed{42}"))

    report = check_env(ID, seeds=(0, 1), actions=choose, max_steps=4)
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_an_episode() -> None:
    async def play() -> None:
        async with make(ID) as env:
            first = await env.reset(task=TASK)
            assert "6 * 7?" in first.observation
            assert "<python>" in first.observation
            step = await env.step("Let me see. <python>print(6 * 7)</python> Then <python>print(1)</python>")
            assert step.observation == "<result>\n42\n</result>"
            assert step.info["tool"] == {"name": "python", "ok": True}
            assert (step.reward, step.terminated, step.info["invalid"]) == (0.0, False, False)
            step = await env.step(r"so \boxed{42}")
            assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
            assert "tool" not in step.info

    asyncio.run(play())


def test_calls_in_the_shape_of_a_chat_and_what_makes_no_sense() -> None:
    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=TASK)
            assert env.tools()[0]["function"]["name"] == "python"
            call = {"function": {"name": "python", "arguments": '{"code": "print(7)"}'}}
            step = await env.step({"role": "assistant", "content": "", "tool_calls": [call]})
            assert step.observation == "<result>\n7\n</result>"
            for nonsense in (r"\boxed{42", "x" * 2_000_000):
                step = await env.step(nonsense)
                assert step.info["invalid"]
                assert not step.terminated
            assert step.truncated

    asyncio.run(play())


def test_a_fork_goes_on_as_the_episode_would() -> None:
    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=TASK)
            await env.step("<python>x = [1]</python>")
            siblings = [env, *await env.fork(2)]
            code = "<python>import random\nx.append(2)\nprint(x, random.random(), hash('a'), object())</python>"
            actions = (code, r"\boxed{42}")
            went = [[seen("", await sibling.step(action)) for action in actions] for sibling in siblings]
            assert went[0] == went[1] == went[2]
            for sibling in siblings[1:]:
                await sibling.close()

    asyncio.run(play())


def test_names_live_until_the_episode_ends() -> None:
    async def play() -> None:
        async with make(ID) as env:
            await env.reset(task=TASK)
            await env.step("<python>x = 6</python>")
            assert (await env.step("<python>x * 7</python>")).observation == "<result>\n42\n</result>"
            await env.reset(task=TASK)
            assert "NameError: name 'x'" in (await env.step("<python>x * 7</python>")).observation

    asyncio.run(play())


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_the_packages_of_this_interpreter_are_there(sandbox: str) -> None:
    pytest.importorskip("sympy", reason="not installed: pip install 'palaestra[math]'")

    async def play() -> Any:
        async with make(ID, sandbox=sandbox) as env:
            await env.reset(task=TASK)
            return await env.step("<python>import sympy\nsympy.sqrt(8)</python>")

    assert asyncio.run(play()).observation == "<result>\n2*sqrt(2)\n</result>"


def test_code_that_is_stopped_shows_nothing_of_how_far_it_came() -> None:
    async def play() -> Any:
        async with make(ID, cpu_seconds=1, seconds=120) as env:
            await env.reset(task=TASK)
            return await env.step("<python>print('so far')\nwhile True: pass</python>")

    step = asyncio.run(play())
    assert "so far" not in step.observation
    assert step.info["tool"]["stopped"] == "it used more than 1 s of processor time"


def test_many_at_once() -> None:
    async def one(number: int) -> str:
        async with make(ID) as env:
            await env.reset(task=TASK)
            await env.step(f"<python>x = {number}</python>")
            return str((await env.step("<python>x</python>")).observation)

    async def play() -> list[str]:
        return await asyncio.gather(*map(one, range(12)))

    assert asyncio.run(play()) == [f"<result>\n{number}\n</result>" for number in range(12)]


def test_without_bubblewrap_it_is_refused_unless_one_asks_for_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvError, match="apt-get install bubblewrap"):
        PythonEnv()
    assert PythonEnv(sandbox="none").tools()
    monkeypatch.setenv("PALAESTRA_SANDBOX", "none")
    assert PythonEnv().tools()
    with pytest.raises(EnvError, match="sandbox is"):
        PythonEnv(sandbox="dockr")


def test_the_suite_offers_it() -> None:
    suite = load_suite("math:test", tools="python", max_turns=4)
    assert suite[0].env == ID
    assert suite[0].params["max_turns"] == 4

    async def play(check: Callable[[Any], Any]) -> Any:
        async with make(ID) as env:
            await env.reset(task=suite[0])
            return check(await env.step(await env.oracle()))

    assert asyncio.run(play(lambda step: step.reward)) == 1.0
