"""ScienceWorld: turns equal to the package's, siblings, oracles, pools that leak nothing, hostile commands."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

if find_spec("scienceworld") is None:
    pytest.skip("not installed: pip install 'palaestra[scienceworld]'", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("Java is not installed: apt-get install default-jre-headless", allow_module_level=True)

from palaestra import make
from palaestra.envs.checker import check_env
from palaestra.envs.episode import seen
from palaestra.envs.registry import spec
from palaestra.envs.scienceworld import solution as solutions
from palaestra.envs.scienceworld.env import ScienceWorldEnv
from palaestra.envs.scienceworld.pool import POOL, Pool
from palaestra.envs.scienceworld.simulator import UNKNOWN, Simulator
from palaestra.envs.scienceworld.solution import solution
from palaestra.envs.scienceworld.tasks import SPLITS, TASKS, Setting, fold, setting
from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError, WorkerError

pytestmark = pytest.mark.integration
ID = "scienceworld/Task-v0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAESTRA_CACHE", str(tmp_path_factory.getbasetemp() / "science"))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    simulator = POOL.borrow()
    yield simulator
    POOL.give_back(simulator)


def science_task(**params: Any) -> Task:
    return Task(env=ID, name="t", params={"variation": 0, "admissible": False, **params})


def alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_keeps_the_contract() -> None:
    quick = msgspec.structs.replace(spec(ID), kwargs={"task": "find-animal", "admissible": False})
    report = check_env(quick, seeds=(0,))
    report.raise_if_failed()
    assert report.determinism == "exact"


def test_folds_are_the_packages(simulator: Simulator) -> None:
    loaded = {"train": "getVariationsTrain", "validation": "getVariationsDev", "test": "getVariationsTest"}
    interface = simulator.jvm.gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()
    for task in ("boil", "identify-life-stages-2", "grow-plant", "inclined-plane-friction-named-surfaces"):
        interface.load(task, 0, "", False)
        assert interface.getTaskMaxVariations(task) == TASKS[task]
        assert {split: list(fold(task, split)) for split in SPLITS} == {
            split: list(getattr(interface, name)()) for split, name in loaded.items()
        }
    assert sorted(interface.getTaskNames()) == sorted(TASKS)
    assert [sum(len(fold(task, split)) for task in TASKS) for split in SPLITS] == [3592, 1796, 1819]


def test_turns_and_valid_actions_equal_the_packages(simulator: Simulator) -> None:
    """Of its outer interface, which its own `step` calls, in a simulator that shares nothing with ours."""
    wanted = setting("find-animal", 3, "easy")
    other = POOL.borrow()
    turn = simulator.begin(wanted)
    other.begin(wanted)
    read = {name: other._realm.method(type_of, name) for name, type_of in READ.items()}
    generator = random.Random(1)
    for i in range(8):
        mine = simulator.admissible()
        other.jvm.call(other._random.setSeed, 0)  # as ours is, for a list that is drawn alike
        own, other_list = generator.choice(mine), other.jvm.call(other._valid, other._outer).split("\n")
        assert mine == sorted(set(other_list))
        assert simulator.admissible() == mine
        command = ["look around", "open door", "0", "help", own, "dance", "task", own][i]
        text = other.jvm.call(other._aside, other._outer, command)
        turn = simulator.step(command, turn)
        assert turn.text == text
        assert turn.score == round(100 * other.jvm.call(read["getScore"], other._outer))
        assert turn.look == other.jvm.call(read["freeActionLook"], other._outer)
        assert turn.inventory == other.jvm.call(read["freeActionInventory"], other._outer)
    POOL.give_back(other)


_INTERFACE = "scienceworld.runtime.pythonapi.PythonInterface"
READ = dict.fromkeys(("getScore", "freeActionLook", "freeActionInventory"), _INTERFACE)


def test_asking_for_valid_actions_changes_nothing() -> None:
    """The package's list draws random numbers, by which its bees fly."""
    wanted = setting("grow-fruit", 0, "easy")
    commands = ["teleport to greenhouse", "wait", "look around", "wait", "teleport to outside", "wait", "look around"]
    went = []
    for asking in (True, False):
        simulator = POOL.borrow()
        turns = [simulator.begin(wanted)]
        for command in commands:
            if asking:
                simulator.admissible()
            turns.append(simulator.step(command, turns[-1]))
        went.append(turns)
        POOL.give_back(simulator)
    assert went[0] == went[1]


def test_simulators_of_other_simplifications_do_not_change_each_other() -> None:
    """The package keeps what is in force, and its random numbers, for all simulators of a virtual machine."""
    easy, plain = setting("grow-plant", 0, "easy"), setting("boil", 1, "")
    commands = ["teleport to greenhouse", "wait", "look around", "wait1", "open door", "0", "look around"]

    def play(simulator: Simulator, beside: Simulator | None) -> list[Any]:
        turns, other = [simulator.begin(easy)], beside and beside.begin(plain)
        for command in commands:
            turns.append(simulator.step(command, turns[-1]))
            if beside and other:
                other = beside.step("wait", other)
                beside.admissible()
        return turns

    first, second = POOL.borrow(), POOL.borrow()
    assert play(first, None) == play(first, second) == play(second, first) == play(second, None)
    POOL.give_back(first)
    POOL.give_back(second)


def test_the_oracle_solves_tasks_and_its_solution_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(wander: list[str]) -> float:
        env = ScienceWorldEnv()
        await env.reset(task=science_task(task="find-animal", variation=2))
        total = 0.0
        for command in wander:
            total += (await env.step(command)).reward
        while True:
            step = await env.step(await env.oracle())
            total += step.reward
            if step.terminated or step.truncated:
                break
        assert step.terminated
        assert step.info["success"]
        assert total == pytest.approx(step.info["score"]) == pytest.approx(1.0)
        await env.close()
        return total

    asyncio.run(play([]))
    solution.cache_clear()
    monkeypatch.setattr(Simulator, "solution", lambda self, setting: pytest.fail("asked again"))
    asyncio.run(play(["teleport to workshop", "open door", "look around", "go to hallway"]))


def test_a_damaged_solution_is_made_anew() -> None:
    wanted = setting("find-animal", 2, "easy")
    found = solution(wanted)
    for damage in (b"", b'["go', b'{"a": 1}', b"[1]", b"\xff" * 100):
        solution.cache_clear()
        path = solutions._path(wanted)
        path.write_bytes(damage)
        assert solution(wanted) == found
        assert path.read_bytes() != damage


def test_what_makes_no_sense_is_answered() -> None:
    async def play() -> None:
        env = ScienceWorldEnv()
        first = await env.reset(task=science_task(task="boil", max_turns=6))
        assert first.observation.startswith("Your task is to boil water.")
        assert "admissible_commands" not in first.info
        assert first.info["inventory"].startswith("In your inventory")
        for action in ("dance", "x" * 3_000_000, "\ud800\0\n\r \x1b[2J", 7, "gо tо kitсhen"):
            step = await env.step(action)  # type: ignore[arg-type]
            assert step.observation == UNKNOWN
            assert step.info["invalid"]
            assert step.reward == 0
        step = await env.step("open door")
        assert step.observation.startswith("Ambiguous request")
        assert not step.info["invalid"]
        assert step.truncated
        assert not step.terminated
        assert (await env.render()).startswith("boil, score 0\nThis room is called")
        await env.close()

    asyncio.run(play())


def test_a_wrong_focus_ends_it_at_minus_one() -> None:
    async def play() -> None:
        env = ScienceWorldEnv()
        await env.reset(task=science_task(task="find-animal"))
        step = await env.step("focus on agent")
        assert (step.reward, step.terminated) == (-1.0, True)
        assert not step.info["success"]
        assert step.info["score"] == -1.0
        await env.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("task", "commands"),
    [
        ("grow-fruit", ["teleport to greenhouse", "wait", "look around", "teleport to outside", "wait", "look around"]),
        ("use-thermometer", ["teleport to kitchen", "open door", "0", "activate stove", "wait", "look around"]),
    ],
)
def test_siblings_equal_the_episode_that_they_left(task: str, commands: list[str]) -> None:
    async def play() -> None:
        here = {"placement": "inline", "task": task, "admissible": False}
        async with make(ID, **here) as env, make(ID, **here) as alone:
            await alone.reset(seed=3)
            expected = [seen("", await alone.step(command)) for command in commands]
            half = len(commands) // 2
            await env.reset(seed=3)
            for command in commands[:half]:
                await env.step(command)
            siblings = [env, *await env.fork(2)]
            went: list[list[str]] = [[] for _ in siblings]
            for command in commands[half:]:
                for sibling, hashes in zip(siblings, went, strict=True):
                    hashes.append(seen("", await sibling.step(command)))
            assert went == [expected[half:]] * len(siblings)
            for sibling in siblings[1:]:
                await sibling.close()

    asyncio.run(play())


def test_a_virtual_machine_that_was_killed_is_an_error_and_the_next_reset_has_another() -> None:
    async def play() -> None:
        env = ScienceWorldEnv()
        task = science_task(task="boil")
        first = await env.reset(task=task)
        assert env._simulator is not None
        process = env._simulator.jvm.process
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        with pytest.raises(WorkerError, match="Java process of ScienceWorld is gone"):
            await env.step("look around")
        assert (await env.reset(task=task)).observation == first.observation
        await env.close()

    asyncio.run(play())


def test_a_pool_has_as_many_virtual_machines_as_its_simulators_need_and_ends_them() -> None:
    pool = Pool(per_jvm=1)
    first, second = pool.borrow(), pool.borrow()
    pids = pool.pids()
    assert len(pids) == 2
    pool.give_back(second)
    assert pool.pids() == pids[:1]
    assert not alive(pids[1])
    pool.give_back(first)
    assert pool.borrow() is first
    pool.stop()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(WorkerError):
        first.begin(Setting("boil", 0, "easy"))


def test_what_the_package_refuses_or_breaks_in_is_an_error(simulator: Simulator) -> None:
    with pytest.raises(EnvError, match="exceeds the total number of variations"):
        simulator.begin(Setting("boil", 99_999, ""))
    turn = simulator.begin(Setting("boil", 0, "nonsense"))
    with pytest.raises(EnvError, match="ScienceWorld failed: .*nonsense"):
        simulator.step("look around", turn)


@pytest.mark.parametrize("params", [{"max_turns": 0}, {"admissible": "no"}, {"variation": -1}, {"simplifications": 3}])
def test_params_that_describe_nothing_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        asyncio.run(ScienceWorldEnv().reset(task=science_task(**{"task": "boil", **params})))
