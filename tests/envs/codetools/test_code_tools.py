"""Code tools of an environment: calls, the shell, files, forks by doing again, and what closing leaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from palaestra.envs.codetools.limits import CodeLimits
from palaestra.envs.codetools.tools import CodeState, CodeTools
from palaestra.envs.isolation.proc import children, descendants
from palaestra.errors import EnvError, ReplayError, UnknownNameError

if shutil.which("bwrap") is None:
    pytest.skip("bubblewrap is not installed: apt-get install bubblewrap", allow_module_level=True)

pytestmark = pytest.mark.integration


def using(
    play: Callable[[CodeTools], Awaitable[None]], limits: CodeLimits | None = None, where: str = "bubblewrap"
) -> None:
    async def run() -> None:
        tools = CodeTools("python", "bash", limits=limits, where=where)
        try:
            await play(tools)
        finally:
            await tools.close()

    asyncio.run(run())


async def bash(tools: CodeTools, command: str) -> str:
    return (await tools.call("bash", command)).text


async def python(tools: CodeTools, code: str) -> str:
    return (await tools.call("python", code)).text


def test_calls_are_found_in_tags_and_in_openais_shape() -> None:
    tools = CodeTools("python", "bash")
    assert [each["function"]["name"] for each in tools.schemas()] == ["python", "bash"]
    found = tools.find("Let me see. <bash>ls</bash> <python>1</python>")
    assert found is not None
    assert found[:2] == ("bash", "ls")
    for tool in tools.schemas():
        (argument,) = tool["function"]["parameters"]["required"]
        said = {"tool_calls": [{"function": {"name": tool["function"]["name"], "arguments": {argument: "1 < 2"}}}]}
        found = tools.find(said)
        assert found is not None
        assert found[:2] == (tool["function"]["name"], "1 < 2")
    assert tools.find("ls") is None


def test_the_shell_stays() -> None:
    async def play(tools: CodeTools) -> None:
        assert await bash(tools, "cd /tmp; A=1; f() { echo $A$1; }; export B=2") == ""
        assert await bash(tools, "pwd; f 3; sh -c 'echo $B'") == "/tmp\n13\n2"
        assert await bash(tools, "sleep 100 & echo $!; jobs") != ""
        assert "Running" in await bash(tools, "jobs")

    using(play)


def test_what_the_shell_says() -> None:
    async def play(tools: CodeTools) -> None:
        outcome = await tools.call("bash", "echo 1; echo 2 >&2; echo 3; (exit 5)")
        assert outcome.text == "1\n2\n3\n[exit code 5]"
        assert outcome.tool == {"name": "bash", "ok": False}
        assert (await tools.call("bash", "true")).result == "<result>\n(nothing printed)\n</result>"
        assert "not found" in await bash(tools, "nosuchprogram")
        assert "yntax error" in await bash(tools, "if then")
        assert await bash(tools, "# nothing") == ""
        assert await bash(tools, "cat; read x; echo $?") == "1"
        assert await bash(tools, "cat <<'END'\n$HOME 'quoted'\nEND") == "$HOME 'quoted'"

    using(play)


def test_a_command_that_is_stopped_costs_the_variables() -> None:
    async def play(tools: CodeTools) -> None:
        await bash(tools, "mkdir a; cd a; X=1")
        outcome = await tools.call("bash", "echo so far; trap '' TERM; while :; do sleep 1; done")
        assert outcome.stopped == "it took more than 2 s"
        assert outcome.text == (
            "so far\nStopped: it took more than 2 s. The shell starts afresh in the same folder: variables and "
            "background jobs are gone, files are not."
        )
        assert await bash(tools, "echo ${PWD##*/} ${X-gone}") == "a gone"

    using(play, CodeLimits(seconds=2))


def test_a_shell_that_ends_itself_goes_on() -> None:
    async def play(tools: CodeTools) -> None:
        assert await bash(tools, "X=1; exit 3") == "[exit code 3]"
        assert await bash(tools, "echo ${X-gone}") == "gone"

    using(play)


def test_much_output_is_cut() -> None:
    async def play(tools: CodeTools) -> None:
        text = await bash(tools, "echo begin; head -c 5000000 /dev/zero | tr '\\0' a; echo; echo end")
        assert text.startswith("begin\naaaa")
        assert text.endswith("aaaa\nend")
        assert len(text) < 300
        assert "left out" in text

    using(play, CodeLimits(output=200))


def test_the_tools_share_files() -> None:
    async def play(tools: CodeTools) -> None:
        await tools.begin({"data/numbers.txt": b"1\n2\n"})
        assert await python(tools, "lines = open('data/numbers.txt').read().split()\nlines") == "['1', '2']\n"
        assert await bash(tools, "echo 'x = 5' > own.py; cat data/numbers.txt") == "1\n2"
        assert await python(tools, "import own\nown.x") == "5\n"
        await tools.begin()
        assert await bash(tools, "ls") == ""

    using(play)


def test_another_goes_on_from_a_snapshot() -> None:
    async def play(tools: CodeTools) -> None:
        await tools.begin({"a": b"1"})
        await python(tools, "x = [1]\nx[0] /= 0")
        await bash(tools, "echo 2 >> a; mkdir b; cd b; Y=7")
        await bash(tools, "sleep 60")
        state = tools.snapshot()
        other = CodeTools("python", "bash", limits=CodeLimits(seconds=3))
        await other.restore(state)
        try:
            for each in (tools, other):
                assert await python(each, "x.append(2)\nx, open('a').read()") == "([1, 2], '12\\n')\n"
                assert await bash(each, "echo ${PWD##*/} ${Y-gone}") == "b gone"
            assert tools.snapshot() == other.snapshot()
            await tools.restore(state)
            assert await python(tools, "x") == "[1]\n"
        finally:
            await other.close()

    using(play, CodeLimits(seconds=3))


def test_after_close_a_call_finds_the_state_again() -> None:
    async def play(tools: CodeTools) -> None:
        await python(tools, "x = 1")
        await tools.close()
        assert await python(tools, "x") == "1\n"

    using(play)


def test_calls_that_go_another_way_when_made_again_are_an_error() -> None:
    async def play(tools: CodeTools) -> None:
        await tools.begin({"a": b""})
        await python(tools, "assert open('a').read() == ''")
        await tools.restore(CodeState(tools.snapshot().calls, {"a": b"changed"}))
        with pytest.raises(ReplayError, match="call 1 of the episode, of python, succeeded and failed when"):
            await python(tools, "1")

    using(play)


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownNameError, match="code tool 'pyton'; did you mean 'python'"):
        CodeTools("pyton")
    with pytest.raises(EnvError, match="sandbox is bubblewrap, docker, remote or none, not 'dockr'"):
        CodeTools("python", where="dockr")
    with pytest.raises(UnknownNameError):
        asyncio.run(CodeTools("python").call("bash", "ls"))

    async def play(tools: CodeTools) -> None:
        with pytest.raises(EnvError, match="a shell runs in a sandbox only"):
            await tools.call("bash", "ls")

    using(play, where="none")


def test_a_call_that_is_cancelled_ends_what_it_began() -> None:
    async def play(tools: CodeTools) -> None:
        await python(tools, "x = 1")
        call = asyncio.create_task(tools.call("python", "import time\ntime.sleep(60)"))
        await asyncio.sleep(0.3)
        call.cancel()
        assert (await asyncio.gather(call, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert "it was stopped" in await python(tools, "1")

    using(play)


@pytest.mark.parametrize("where", ["bubblewrap", "none"])
def test_closing_leaves_nothing(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    async def play() -> None:
        tools = CodeTools("python", where=where)
        await tools.call("python", "import subprocess\nsubprocess.Popen(['sleep', '4321'])")
        await tools.close()

    asyncio.run(play())
    until = time.monotonic() + 5
    while "4321" in (left := _commands()) and time.monotonic() < until:
        time.sleep(0.05)
    assert "4321" not in left
    assert not list(tmp_path.iterdir())


def _commands() -> str:
    found = []
    for pid in descendants(os.getpid(), children()):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return " ".join(found)
