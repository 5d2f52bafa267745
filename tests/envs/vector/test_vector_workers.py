"""Processes, memory and failures of `PoolVectorEnv`."""

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from support.vector_envs import Trouble

from palaestra import Task, register
from palaestra.envs import registry
from palaestra.envs.isolation import proc
from palaestra.envs.isolation.placement import Deadlines, Placement
from palaestra.envs.vector import PoolVectorEnv
from palaestra.errors import DeadlineError, EnvError, UnknownNameError, WorkerError

BRIEF = Placement(deadlines=Deadlines(step=0.5, reset=5.0, close=0.5))


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


@pytest.fixture
def trouble() -> Iterator[PoolVectorEnv]:
    with closing(PoolVectorEnv(Trouble, 4, workers=2, placement=BRIEF)) as envs:
        envs.reset()
        yield envs


def pids_of(envs: PoolVectorEnv) -> list[int]:
    return [crew.process.pid for crew in envs._crews]


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.01)
    return False


def act(**special: int) -> Any:
    """No action but for some environments, as `e2=1`."""
    return np.array([special.get(f"e{i}", 0) for i in range(4)])


def test_nothing_is_left_behind() -> None:
    PoolVectorEnv("CartPole-v1", 2, workers=2).close()  # starts the fork server
    gc.collect()
    before = proc.open_files()
    envs = PoolVectorEnv("CartPole-v1", 5, workers=3)
    envs.reset()
    pids = pids_of(envs)
    assert len(set(pids)) == 3
    envs.close()
    envs.close()
    assert gone(pids)
    assert proc.open_files() == before
    for call in (envs.reset, lambda: envs.step(np.zeros(5, int)), lambda: envs.call("render")):
        with pytest.raises(EnvError, match="closed"):
            call()


def test_who_forgets_to_close_leaves_nothing_behind() -> None:
    PoolVectorEnv("CartPole-v1", 1).close()
    gc.collect()
    before = proc.open_files()
    envs = PoolVectorEnv("CartPole-v1", 2, workers=2)
    pids = pids_of(envs)
    del envs
    gc.collect()
    assert gone(pids)
    assert proc.open_files() == before


def test_observations_are_copies_unless_that_is_not_wanted() -> None:
    for copy in (True, False):
        with closing(PoolVectorEnv("CartPole-v1", 2, workers=1, copy=copy)) as envs:
            first = envs.reset(seed=1)[0]
            kept = first.copy()
            second = envs.step(np.array([0, 1]))[0]
            assert np.array_equal(first, kept) is copy
            assert np.shares_memory(first, second) is not copy
    assert np.isfinite(second).all()  # still there after `close`


def test_an_environment_that_raises_is_named(trouble: PoolVectorEnv) -> None:
    with pytest.raises(EnvError, match=r"environment 2: ValueError: the floor is lava \(.*vector_envs.py:\d+\)"):
        trouble.step(act(e2=1))
    with pytest.raises(EnvError, match="the last call failed; call reset first"):
        trouble.step(act())
    with pytest.raises(EnvError, match="the last call failed"):
        trouble.reset(options={"reset_mask": np.array([False, False, True, False])})
    pids = pids_of(trouble)
    trouble.reset()
    trouble.step(act())
    assert pids_of(trouble) == pids  # nobody had to be replaced


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (4, "environment 1: SystemExit: 0"),
        (5, r"environment 1: ValueError: the observation has shape \(3,\), and its space \(2,\)"),
        (6, "environment 1: cannot send this .*: no message can carry a object"),
        (7, "environment 1: TypeError: the observation holds <U1, and its space float32"),
    ],
)
def test_what_is_no_step_is_named(trouble: PoolVectorEnv, action: int, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        trouble.step(act(e1=action))
    trouble.reset()
    trouble.step(act())


def test_a_crash_is_named_and_reset_begins_anew(trouble: PoolVectorEnv) -> None:
    before = pids_of(trouble)
    gone_until_reset = "the worker of environments 2 to 3 is gone"
    killed = r"environment 3: the worker process was killed by signal 9 \(SIGKILL\) during step; "
    with pytest.raises(WorkerError, match=killed + gone_until_reset):
        trouble.step(act(e3=2))
    with pytest.raises(EnvError, match=gone_until_reset + "; call reset first"):
        trouble.call("render")
    trouble.reset()
    assert trouble.step(act())[0].shape == (4, 2)
    after = pids_of(trouble)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_hang_is_ended_at_its_deadline_and_named(trouble: PoolVectorEnv) -> None:
    pids, began = pids_of(trouble), time.monotonic()
    with pytest.raises(
        DeadlineError, match="environment 0: step took longer than 0.5 s; the worker of environments 0 to 1 is gone"
    ):
        trouble.step(act(e0=3, e3=1))
    assert time.monotonic() - began < 5
    assert gone(pids[:1])
    trouble.reset()
    trouble.step(act())


def test_two_that_hang_share_one_deadline(trouble: PoolVectorEnv) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="environment 1"):
        trouble.step(act(e1=3, e2=3))
    assert time.monotonic() - began < 2
    assert [crew.alive for crew in trouble._crews] == [False, False]
    trouble.reset()
    trouble.step(act())


def test_who_is_killed_between_steps_is_missed_by_the_next(trouble: PoolVectorEnv) -> None:
    os.kill(pids_of(trouble)[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match="killed by signal 9"):
        trouble.step(act())


def test_an_interrupt_leaves_no_late_answer(trouble: PoolVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            trouble.step(act(e0=3))
    finally:
        signal.signal(signal.SIGALRM, old)
    with pytest.raises(EnvError, match="is gone|failed"):
        trouble.step(act())
    trouble.reset()
    trouble.step(act())


def test_an_environment_that_cannot_be_reset_is_named(trouble: PoolVectorEnv) -> None:
    with pytest.raises(EnvError, match="environment 0: ValueError: no such task"):
        trouble.reset(options={"at": "reset"})
    trouble.reset()


def test_an_environment_that_forks_its_process_is_answered_for_once() -> None:
    with closing(PoolVectorEnv(Trouble, 4, workers=2, placement=BRIEF, copy=False)) as envs:
        for _ in range(3):
            observations, _ = envs.reset(options={"at": "fork"})
            time.sleep(0.2)  # the other process would write ones
            assert not np.asarray(observations).any()
            assert envs.step(act())[1].tolist() == [0.0] * 4


def test_what_is_no_answer_costs_the_worker(trouble: PoolVectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pids_of(trouble)
    with monkeypatch.context() as patch:
        patch.setattr(trouble._crews[1].line, "receive", lambda until: b"\xc1")
        with pytest.raises(WorkerError, match="the worker of environments 2 to 3 is gone until the next reset"):
            trouble.step(act())
    trouble.reset()
    trouble.step(act())
    assert [old == new for old, new in zip(before, pids_of(trouble), strict=True)] == [True, False]


@pytest.mark.parametrize("at", ["close", "hang"])
def test_closing_never_fails(at: str) -> None:
    envs = PoolVectorEnv(Trouble, 2, workers=2, placement=BRIEF, at=at)
    pids, began = pids_of(envs), time.monotonic()
    envs.close()
    assert gone(pids)
    assert time.monotonic() - began < 5


def test_an_environment_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(EnvError, match="environment 0: ValueError: no such level"):
        PoolVectorEnv(Trouble, 2, at="make")


def test_environments_that_differ_are_refused(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes"
    for workers in (1, 2):
        sizes.write_text("2")
        with pytest.raises(EnvError, match=r"the spaces of environment 1 differ"):
            PoolVectorEnv("support.vector_envs:uneven", 2, workers=workers, sizes=str(sizes))


def test_a_step_before_reset_is_refused() -> None:
    with (
        closing(PoolVectorEnv("CartPole-v1", 2, workers=1)) as envs,
        pytest.raises(EnvError, match="step was called before reset"),
    ):
        envs.step(np.zeros(2, int))


def test_an_episode_that_is_over_is_not_stepped_without_autoreset() -> None:
    with closing(PoolVectorEnv("CartPole-v1", 2, workers=1, autoreset_mode="Disabled")) as envs:
        envs.reset(seed=1)
        while not (over := envs.step(np.array([0, 1]))[2]).any():
            pass
        with pytest.raises(EnvError, match=f"environment {int(over.argmax())}: its episode is over; reset it"):
            envs.step(np.array([0, 1]))


@pytest.mark.parametrize("actions", [np.zeros(3, int), np.zeros((4, 1), int), np.full(4, 0.5), ["a"] * 4, 1])
def test_what_is_no_batch_of_actions_is_refused_before_anybody_moves(trouble: PoolVectorEnv, actions: Any) -> None:
    with pytest.raises(EnvError, match="not a batch of actions for 4 environments"):
        trouble.step(actions)
    trouble.step(act())


def test_sources_that_make_no_sense() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'CartPole-v1'"):
        PoolVectorEnv("CartPoll-v1", 2)
    with pytest.raises(EnvError, match="cannot load"):
        PoolVectorEnv("no.such.module:Env", 2)
    with pytest.raises(EnvError, match="a worker process cannot find"):
        PoolVectorEnv(lambda: gymnasium.make("CartPole-v1"), 2)
    with pytest.raises(EnvError, match="made a Task"):
        PoolVectorEnv("palaestra.envs.tasks:Task", 2, env="a/B-v0", name="c")
    with pytest.raises(EnvError, match="one environment and one worker"):
        PoolVectorEnv("CartPole-v1", 0)


def test_tasks_and_text_of_an_environment_of_ours() -> None:
    register("t/Ledger-v0", "support.isolated_envs:Ledger", max_episode_steps=2, placement="process")
    with closing(PoolVectorEnv("t/Ledger-v0", 3, workers=2)) as envs:
        task = Task(env="t/Ledger-v0", name="one", params={"level": 1})
        observations = [envs.reset(seed=seed, options={"task": task})[0] for seed in (1, 1, 2)]
        assert observations[0] == observations[1] != observations[2]
        assert observations[0][1] == observations[2][0]  # environment 1 of seed 1 has seed 2
        envs.step(["look"] * 3)
        _, _, terminated, truncated, infos = envs.step(("look", "go", "é \N{OWL}"))
        assert truncated.all()
        assert not terminated.any()
        assert infos["task_type"].tolist() == ["ledger"] * 3
        with pytest.raises(EnvError, match="2 values for 3 environments"):
            envs.step(["look", "look"])


def played(placement: Placement) -> None:
    with closing(PoolVectorEnv("CartPole-v1", 1, placement=placement)) as envs:
        envs.reset()
        while True:
            envs.step(np.zeros(1, int))


def test_memory_has_a_ceiling() -> None:
    with pytest.raises(WorkerError, match="more than its limit"):
        played(Placement(memory_bytes=1_000_000))
