"""Episodes in real sandboxes: what tools do, what comes of the work, and what happens when the sandbox goes."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from support.swe_episode import begun, make_rows, need_bubblewrap, run, task_of
from support.swe_repository import CODE

from palaestra.agents.episode import Episode, RolloutLimits
from palaestra.agents.rollout import rollout
from palaestra.agents.scripted import ScriptedAgent
from palaestra.envs.registry import make
from palaestra.envs.swe import swebench
from palaestra.errors import DataError, EnvError, SandboxError, UnknownNameError
from palaestra.sandboxes.spec import MIB, Limits

EDIT = """<edit>
src/lists.py
<<<<<<< old
    return sorted(numbers)[1]
=======
    return sorted(numbers)[0]
>>>>>>> new
</edit>"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_bubblewrap()
    return make_rows(tmp_path_factory.mktemp("swe"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


async def said(env: Any, action: str) -> str:
    step = await env.step(action)
    text: str = step.observation
    return text


def test_the_task_is_told_and_the_repository_has_no_history(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows)) as (env, first):
            assert "smallest and total are wrong." in first.observation
            assert first.info["task_type"] == "some/lists"
            assert await said(env, "<shell>git log --oneline | wc -l; git status --short</shell>") == "1"
            assert "the mend" not in await said(env, "<shell>git log --all --format=%s; git reflog</shell>")

    run(play())


def test_a_shell_stays(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows, seconds=5)) as (env, _):
            step = await env.step("<shell>cd src; X=7; f() { echo f$X; }; pwd</shell>")
            assert step.observation == "/work/repo/src"
            assert step.info["tool"] == {"name": "shell", "ok": True, "exit_code": 0}
            assert await said(env, "<shell>f; pwd</shell>") == "f7\n/work/repo/src"
            step = await env.step("<shell>echo out; echo err >&2; echo out; (exit 3)</shell>")
            assert step.observation == "out\nerr\nout\n(exit code 3)"
            assert not step.info["tool"]["ok"]
            assert "syntax error" in await said(env, "<shell>if</shell>")
            assert await said(env, "<shell># nothing</shell>") == "(no output)"
            assert await said(env, "<shell>pwd</shell>") == "/work/repo/src"

    run(play())


def test_a_command_without_end_is_stopped_and_the_shell_begins_anew(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows, seconds=1)) as (env, _):
            text = await said(env, "<shell>cd src; trap '' TERM; echo begun; sleep 1000</shell>")
            assert text.startswith("begun")
            assert "stopped after 1 s" in text
            assert await said(env, "<shell>pwd; jobs; ps ax 2>/dev/null | grep -c '[s]leep 1000'</shell>") == (
                "/work/repo/src\n0\n(exit code 1)"
            )

    run(play())


def test_a_lot_of_output_is_cut_down_to_what_failed(rows: Path) -> None:
    script = "for i in $(seq 20000); do echo line $i; [ $i = 9000 ] && echo FAILED tests/a.py::b; done; echo 1 failed"

    async def play() -> None:
        async with begun(task_of(rows, observation=2000)) as (env, _):
            text = await said(env, f"<shell>{script}</shell>")
            assert len(text) < 2100
            assert text.startswith("line 1\n")
            assert "FAILED tests/a.py::b" in text
            assert text.endswith("1 failed")

    run(play())


def test_files_are_looked_at_found_and_changed(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            assert "     6\t    return sorted(numbers)[1]" in await said(env, "<view>src/lists.py:4-7</view>")
            assert "src/lists.py:6: return sorted" in await said(env, "<search>sorted.numbers..1</search>")
            assert "is changed" in await said(env, EDIT)
            step = await env.step(EDIT)
            assert "not in src/lists.py" in step.observation
            assert step.info["invalid"]
            assert not step.info["tool"]["ok"]
            assert "No such file" in await said(env, "<view>gone.py</view>")

    run(play())


def test_patches_are_applied_whole_or_explained(rows: Path) -> None:
    diff = """<apply_patch>
--- a/src/lists.py
+++ b/src/lists.py
@@ -4,9 +4,9 @@
 def smallest(numbers):
     \"\"\"The smallest number.\"\"\"
-    return sorted(numbers)[%s]
+    return min(numbers)
 
 
 def largest(numbers):
</apply_patch>"""

    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            step = await env.step(diff % 7)
            assert "does not apply, and nothing was changed" in step.observation
            assert "return sorted(numbers)[1]" in step.observation  # what is there
            assert step.info["invalid"]
            assert "The patch is applied." in await said(env, diff % 1)  # though its header counts wrongly
            assert "min(numbers)" in await said(env, "<shell>git diff</shell>")

    run(play())


def test_the_result_is_a_patch_with_new_and_binary_files_but_no_tests(rows: Path) -> None:
    script = (
        "printf '\\0\\1' > blob; echo x > new.py; rm run.sh; chmod +x src/lists.py; echo log > a.log; "
        "echo >> tests/test_lists.py"
    )

    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            await env.step(f"<shell>{script}; git add -A; git commit -qm mine; echo y > later.py</shell>")
            step = await env.step("<submit></submit>")
            assert step.terminated
            patch = step.info["patch"]
            assert "patch_problem" not in step.info
            for part in (
                "GIT binary patch",
                "+++ b/new.py",
                "+++ b/later.py",
                "deleted file mode 100755",
                "new mode 100755",
            ):
                assert part in patch
            assert "a.log" not in patch
            assert "test_lists" not in patch
            with pytest.raises(EnvError, match="after the end"):
                await env.step("<submit></submit>")
        async with begun(task_of(rows)) as (env, _):
            assert "applied" in await said(env, f"<apply_patch>{patch}</apply_patch>")
            assert (await env.step("<submit></submit>")).info["patch"] == patch

    run(play())


def test_a_repository_that_git_cannot_read_has_no_patch_but_a_reason(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            await env.step("<shell>rm -rf .git; git init -q</shell>")
            info = (await env.step("<submit></submit>")).info
            assert info["patch"] == ""
            assert "git cannot tell" in info["patch_problem"]

    run(play())


def test_settings_of_the_agent_s_git_change_no_patch(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            await env.step(
                "<shell>git config diff.external /bin/true; git config diff.noprefix true; "
                "git config core.hooksPath /tmp; git config --global diff.noprefix true; echo x > new.py</shell>"
            )
            assert "+++ b/new.py" in (await env.step("<submit></submit>")).info["patch"]

    run(play())


def test_an_action_without_a_call_is_answered_and_counts(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows, max_turns=2)) as (env, _):
            step = await env.step("I think it is fine.")
            assert "No call was found" in step.observation
            assert step.info["invalid"]
            assert not step.truncated
            step = await env.step(EDIT)
            assert step.truncated
            assert "+    return sorted(numbers)[0]" in step.info["patch"]

    run(play())


def test_doing_nothing_solves_nothing_and_the_oracle_everything(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows, reward="partial")) as (env, _):
            verdict = await env.verify()
            assert (verdict.reward, verdict.success) == (0.0, False)
            assert await env.oracle() == await env.oracle()
            await env.step(EDIT)
            verdict = await env.verify()
            assert (verdict.reward, verdict.success) == (0.5, False)
            actions = [await env.oracle()]
            while not (step := await env.step(actions[-1])).terminated:
                actions.append(await env.oracle())
            # The solution does not apply to what the agent did, so the oracle has it put back first.
            assert [action[1:6] for action in actions] == ["apply", "shell", "apply", "submi"]
            assert step.info["patch"]
            verdict = await env.verify()
            assert (verdict.reward, verdict.success) == (1.0, True)

    run(play(), 300)


def test_a_fork_has_files_and_variables_and_goes_its_own_way(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows, max_turns=4)) as (env, _):
            await env.step(
                '<shell>cd src; export X="a\'b\n c"; g() { echo g; }; shopt -s nullglob; echo new > ../new.py</shell>'
            )
            siblings = await env.fork(2)
            try:
                for sibling in siblings:
                    assert await said(sibling, '<shell>pwd; echo "$X"; g; shopt nullglob; cat ../new.py</shell>') == (
                        "/work/repo/src\na'b\n c\ng\nnullglob       \ton\nnew"
                    )
                await siblings[0].step("<shell>rm ../new.py</shell>")
                assert "new" in await said(siblings[1], "<shell>cat ../new.py</shell>")
                assert (await siblings[1].step("<view></view>")).truncated  # its fourth turn
                await siblings[0].close()
                step = await env.step("<submit></submit>")
                assert "new.py" in step.info["patch"]
            finally:
                await asyncio.gather(*(sibling.close() for sibling in siblings))

    run(play())


def test_a_sandbox_that_is_killed_is_an_error_and_leaves_nothing(rows: Path) -> None:
    async def play() -> None:
        before = children()
        async with begun(task_of(rows)) as (env, _):
            waiting = asyncio.create_task(env.step("<shell>sleep 50</shell>"))
            await asyncio.sleep(0.3)
            kill(env)
            with pytest.raises(SandboxError):
                await waiting
            with pytest.raises(SandboxError):
                await env.step("<view></view>")
            with pytest.raises(SandboxError):
                await env.verify()
        assert children() <= before

    run(play())


def test_a_lost_sandbox_is_a_status_of_its_episode(rows: Path) -> None:
    """The runner of the sandbox is killed in the midst of the episode, in every attempt."""

    def made(id: str) -> Any:
        env = make(id)
        inner, step = env.unwrapped, env.unwrapped.step

        async def killing(action: Any) -> Any:
            kill(env)
            return await step(action)

        inner.step = killing  # type: ignore[method-assign]
        return env

    async def play() -> None:
        before = children()
        agent = ScriptedAgent(["<shell>ls</shell>"])
        limits = RolloutLimits(retries=1, max_turns=3)
        (trajectory,) = await rollout([Episode(task=task_of(rows), id="e")], agent, made, limits)
        assert trajectory.status == "error"
        assert trajectory.error
        assert children() <= before

    run(play())


def test_sandboxes_that_are_kept_ready_go_with_the_last_environment(rows: Path) -> None:
    async def play() -> None:
        before = children()
        async with begun(task_of(rows), ready=2) as (env, _), begun(task_of(rows), ready=2) as (other, _):
            assert env.unwrapped._engine is other.unwrapped._engine
            assert await said(other, "<shell>pwd</shell>") == "/work/repo"
            await env.close()
            assert await said(other, "<shell>pwd</shell>") == "/work/repo"
        assert children() <= before

    run(play())


def test_the_patch_is_in_the_record_of_the_episode(rows: Path) -> None:
    async def play() -> None:
        agent = ScriptedAgent([EDIT, "<submit></submit>"])
        for turns in (2, 1):  # handed in, and cut off by the driver
            limits = RolloutLimits(max_turns=turns)
            (trajectory,) = await rollout([Episode(task=task_of(rows), id="e")], agent, make, limits)
            assert trajectory.status == "ok"
            assert not trajectory.success
            assert "+    return sorted(numbers)[0]" in trajectory.meta["patch"]
            assert trajectory.steps[0].tool == {"name": "edit", "ok": True}

    run(play())


HOSTILE = {
    "a full disk": "head -c 100M /dev/zero > big; ls -l big | cut -d' ' -f5",
    "forks without end": ":(){ :|:& };: 2>/dev/null; sleep 1",
    "a gigabyte of output": "head -c 1G /dev/zero | tr '\\0' x",
    "odd names": "touch $'new\\nline' $'tab\\t' -- '-rf' \"$(printf '\\377')\"",
    "links and pipes": "ln -s / out; ln -s loop loop; mkfifo fifo src/fifo",
    "a sparse file": "truncate -s 100G sparse",
    "no git": "rm -rf .git; mkdir .git; touch .git/HEAD",
    "no folder": "cd /; rm -rf /work/repo",
    "a shell that ends": "exit 7",
    "a shell that is killed": "kill -9 $$",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", HOSTILE.values(), ids=list(HOSTILE))
def test_whatever_an_agent_does_is_an_answer_and_a_verdict(
    rows: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swebench, "LIMITS", Limits(disk=64 * MIB, memory=512 * MIB, pids=64))

    async def play() -> None:
        before = children()
        async with begun(task_of(rows, seconds=5)) as (env, _):
            step = await env.step(f"<shell>{script}</shell>")
            assert len(step.observation) < 9000
            for action in ("<view></view>", "<search>smallest</search>", EDIT, "<shell>pwd</shell>"):
                assert isinstance(await said(env, action), str)
            step = await env.step("<submit></submit>")
            assert isinstance(step.info["patch"], str)
            verdict = await env.verify()
            assert not verdict.success
            assert verdict.info["reason"]
        assert children() <= before

    run(play(), 280)


def test_sandboxes_may_be_on_another_machine(rows: Path) -> None:
    """The server goes in the midst of the episode: a typed error, and `close` works all the same."""
    pytest.importorskip("aiohttp")
    from palaestra.sandboxes.bubblewrap import BubblewrapBackend
    from palaestra.sandboxes.remote.server import SandboxServer, ServerSettings

    async def play() -> None:
        before = children()
        async with AsyncExitStack() as machine:
            serving = SandboxServer(BubblewrapBackend(), ServerSettings(port=0))
            server = await machine.enter_async_context(serving)
            settings = {"url": server.url}
            async with begun(task_of(rows, backend="remote"), settings=settings) as (env, _):
                assert await said(env, "<shell>cd src; pwd</shell>") == "/work/repo/src"
                assert "is changed" in await said(env, EDIT)
                (sibling,) = await env.fork(1)
                await sibling.close()
                assert "sorted(numbers)[0]" in (await env.step("<submit></submit>")).info["patch"]
            async with begun(task_of(rows, backend="remote"), settings=settings) as (env, _):
                await machine.aclose()
                with pytest.raises(SandboxError):
                    await env.step("<shell>pwd</shell>")
        assert children() <= before

    run(play())


def test_bad_tasks_are_refused_before_anything_starts(rows: Path) -> None:
    async def play() -> None:
        before = children()
        env = make("swe/Repository-v0")
        for params in ({"format": "harbour"}, {"format": 7}, {}):
            task = task_of(rows)
            with pytest.raises(DataError, match="format of a software-engineering task"):
                await env.reset(task=type(task)(env=task.env, name="x", params=params))
        with pytest.raises(EnvError, match="call reset"):
            await env.step("<view></view>")
        await env.close()
        await env.close()
        assert children() <= before

    run(play())
    with pytest.raises(EnvError, match="no option"):
        make("swe/Repository-v0", turns=3)
    with pytest.raises(UnknownNameError, match="did you mean 'docker'"):
        make("swe/Repository-v0", backend="dockr")


def test_the_code_is_as_the_clone_has_it(rows: Path) -> None:
    async def play() -> None:
        async with begun(task_of(rows)) as (env, _):
            assert await env.unwrapped._sandbox.read_file("/work/repo/src/lists.py") == CODE.encode()
            assert await said(env, "<shell>stat -c '%A %N' run.sh link | cut -c 1-60</shell>") == (
                "-rwxr-xr-x 'run.sh'\nlrwxrwxrwx 'link' -> 'src/lists.py'"
            )

    run(play())


def kill(env: Any) -> None:
    """Kill all processes of an environment's sandbox, from outside."""
    found = [str(env.unwrapped._sandbox._process.pid)]
    for pid in found:
        found += children(pid)
    for pid in reversed(found):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def children(of: str = "self") -> set[str]:
    """Ids of the processes that one has."""
    pid = os.getpid() if of == "self" else int(of)
    with suppress(OSError):
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return set()
