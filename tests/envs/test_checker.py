import asyncio
import itertools
import json
import random
import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from palaestra import Env, EnvSpec, Reset, Step, check_env, register
from palaestra.envs import registry
from palaestra.envs.checker import Report, acheck
from palaestra.errors import EnvError, UnknownNameError


class Sum(Env[str, str]):
    """Say + or - until the hidden number is reached; right in every respect."""

    def __init__(self) -> None:
        self.generator = random.Random(0)

    async def reset(self, *, seed: int | None = None, task: Any = None, options: Any = None) -> Reset[str]:
        self.generator = random.Random(seed)
        self.place, self.goal = 0, self.generator.choice((-8, 8, 9))
        return Reset(f"goal {self.goal}", self._info(False))

    async def step(self, action: str) -> Step[str]:
        invalid = action not in ("+", "-")
        self.place += {"+": 1, "-": -1}.get(action, 0)
        return Step(f"at {self.place}", float(self._won), self._won, False, self._info(invalid))

    async def oracle(self) -> str:
        return "+" if self.goal > self.place else "-"

    async def snapshot(self) -> Any:
        return self.place, self.goal, self.generator.getstate()

    async def restore(self, state: Any) -> None:
        self.place, self.goal, generator = state
        self.generator.setstate(generator)

    async def render(self) -> str:
        return str(self.place)

    def tools(self) -> list[Any]:
        return [{"type": "function", "function": {"name": "add"}}]

    @property
    def _won(self) -> bool:
        return self.place == self.goal

    def _info(self, invalid: bool) -> dict[str, Any]:
        return {"admissible_commands": ["+", "-"], "success": self._won, "invalid": invalid, "task_type": "sum"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


def _outcomes(report: Report) -> dict[str, str]:
    return {check.name: check.outcome for check in report.checks}


def test_a_right_environment_passes_every_check() -> None:
    register("t/Sum-v0", Sum, max_episode_steps=20)
    report = check_env("t/Sum-v0")
    assert report.ok
    assert set(_outcomes(report).values()) == {"pass"}, str(report)
    assert report.determinism == "exact"
    assert report.episodes == 3
    report.raise_if_failed()


def test_the_household_passes() -> None:
    report = check_env("alfworld/Household-v0")
    assert report.failures == []
    assert report.determinism == "exact"


def test_a_gymnasium_class_is_checked_too() -> None:
    report = check_env(lambda: gymnasium.make("CartPole-v1"), max_steps=10)
    assert report.failures == []
    assert report.determinism == "exact"
    assert _outcomes(report)["oracle solves"] == "skip"


def test_the_report_reads_well() -> None:
    text = str(check_env(Sum))
    assert text.splitlines()[0] == "Sum"
    assert "  ✓ oracle solves" in text
    assert "  – spec " in text
    assert text.splitlines()[-1].startswith(
        "27 passed, 0 to look at, 0 failed, 3 skipped; determinism: exact (3 episodes, "
    )


def test_the_report_is_json() -> None:
    report = json.loads(check_env(Sum).to_json())
    assert report["ok"] is True
    assert report["env"] == "Sum"
    assert {"name", "outcome", "reason"} == set(report["checks"][0])


def test_in_a_coroutine_one_awaits() -> None:
    async def both() -> Report:
        with pytest.raises(EnvError, match="await acheck"):
            check_env(Sum)
        return await acheck(Sum)

    assert asyncio.run(both()).ok


def test_actions_may_be_given() -> None:
    played: list[str] = []

    class Recording(Sum):
        async def step(self, action: str) -> Step[str]:
            played.append(action)
            return await super().step(action)

    report = check_env(Recording, actions=["+", "+", "-"], seeds=[5], max_steps=7)
    assert report.ok
    assert report.steps <= 7
    assert played[:2] == ["+", "+"]


@pytest.mark.parametrize("wrong", [{"seeds": ()}, {"actions": []}])
def test_something_must_be_played(wrong: Any) -> None:
    with pytest.raises(EnvError, match="at least one seed and one action"):
        check_env(Sum, **wrong)


def test_an_instance_cannot_be_made_anew() -> None:
    with pytest.raises(EnvError, match="give it an id, a spec or a class"):
        check_env(Sum())  # type: ignore[arg-type]


def test_an_unknown_id_is_the_callers_error() -> None:
    with pytest.raises(UnknownNameError):
        check_env("t/Nothing-v0")


def test_a_spec_that_cannot_be_loaded_fails_and_the_rest_is_skipped() -> None:
    report = check_env(EnvSpec(id="t/No-v0", entry_point="no_such_module_anywhere:E"))
    assert [check.name for check in report.failures] == ["make"]
    assert report.checks[-1].reason == "needs make"
    assert report.determinism is None
    assert "determinism: unknown" in str(report)
    with pytest.raises(EnvError, match="t/No-v0 breaks the contract: make: cannot load"):
        report.raise_if_failed()


_ticks = itertools.count()


def _broken(**methods: Callable[..., Any]) -> type[Sum]:
    return type("Broken", (Sum,), methods)


def _stepping(**changes: Any) -> Callable[..., Any]:
    """A `step` in which something is replaced."""

    async def step(self: Sum, action: str) -> Any:
        return (await Sum.step(self, action))._replace(**changes)

    return step


def _informing(**changes: Any) -> Callable[..., Any]:
    async def step(self: Sum, action: str) -> Any:
        taken = await Sum.step(self, action)
        return taken._replace(info={**taken.info, **changes})

    return step


async def _bare_reset(self: Sum, **kwargs: Any) -> Any:
    return tuple(await Sum.reset(self, **kwargs))


async def _bare_step(self: Sum, action: str) -> Any:
    return tuple(await Sum.step(self, action))


async def _array(self: Sum, **kwargs: Any) -> Any:
    await Sum.reset(self, **kwargs)
    return Reset(np.zeros(2), {})


async def _one_info(self: Sum, action: str) -> Any:
    self.shared = getattr(self, "shared", {})  # type: ignore[attr-defined]
    return (await Sum.step(self, action))._replace(info=self.shared)  # type: ignore[attr-defined]


async def _growing_list(self: Sum, action: str) -> Any:
    self.commands = [*getattr(self, "commands", ["+"])] if not hasattr(self, "commands") else self.commands
    self.commands.append("-")
    taken = await Sum.step(self, action)
    return taken._replace(info={**taken.info, "admissible_commands": self.commands})


async def _unseeded(self: Sum, **kwargs: Any) -> Any:
    return (await Sum.reset(self, **kwargs))._replace(observation=f"at {next(_ticks)}")


async def _carried_over(self: Sum, **kwargs: Any) -> Any:
    self.episodes = getattr(self, "episodes", 0) + 1  # type: ignore[attr-defined]
    return (await Sum.reset(self, **kwargs))._replace(observation=f"episode {self.episodes}")  # type: ignore[attr-defined]


async def _global_random(self: Sum, action: str) -> Any:
    random.random()
    return await Sum.step(self, action)


async def _global_numpy(self: Sum, action: str) -> Any:
    np.random.random()  # noqa: NPY002
    return await Sum.step(self, action)


async def _close_once(self: Sum) -> None:
    if hasattr(self, "gone"):
        raise RuntimeError("already closed")
    self.gone = True  # type: ignore[attr-defined]


async def _strict(self: Sum, action: str) -> Any:
    if action not in ("+", "-"):
        raise KeyError(action)
    return await Sum.step(self, action)


async def _crash(self: Sum, action: str) -> Any:
    raise ZeroDivisionError("oops")


async def _forgetful(self: Sum) -> Any:
    return 0, self.goal, self.generator.getstate()


async def _three(self: Any) -> Any:
    return 3


async def _wrong_way(self: Sum) -> str:
    return "-" if self.goal > self.place else "+"


async def _acting_oracle(self: Sum) -> str:
    self.place = 0
    return "+" if self.goal > 0 else "-"


@pytest.mark.parametrize(
    ("methods", "check", "reason"),
    [
        ({"reset": _bare_reset}, "reset", "reset returned a tuple; return Reset"),
        ({"step": _bare_step}, "step", "step returned a tuple; return Step"),
        ({"step": _crash}, "step", "raised ZeroDivisionError: oops"),
        ({"reset": _array}, "observations are text", "an observation is a ndarray"),
        ({"step": _stepping(reward=np.float32(1))}, "rewards are finite floats", "a reward is a float32"),
        ({"step": _stepping(reward=float("nan"))}, "rewards are finite floats", "a reward is nan"),
        ({"step": _stepping(reward=True)}, "rewards are finite floats", "a reward is a bool"),
        ({"step": _stepping(terminated=np.bool_(True))}, "flags are bools", "terminated is a bool"),
        ({"step": _stepping(truncated=None)}, "flags are bools", "truncated is a NoneType"),
        ({"step": _stepping(info=[])}, "infos are dicts", "an info is a list"),
        ({"step": _informing(success=1)}, "infos are dicts", r"info\['success'\] is a int; make it a bool"),
        ({"step": _informing(admissible_commands="+-")}, "admissible commands", "not a list of str"),
        ({"step": _one_info}, "nothing returned changes", "one info dict is returned again"),
        ({"step": _growing_list}, "nothing returned changes", "changed after it was returned"),
        ({"reset": _unseeded}, "seed", "starts differently in a new instance"),
        ({"reset": _carried_over}, "seed", "starts differently after another episode"),
        ({"step": _global_random}, "global generators untouched", "global generator of random"),
        ({"step": _global_numpy}, "global generators untouched", r"global generator of numpy\.random"),
        ({"close": _close_once}, "close", "raised RuntimeError: already closed"),
        ({"step": _strict}, "nonsense is answered", "raised KeyError"),
        ({"snapshot": _forgetful}, "snapshot", "after restore the same actions have another outcome"),
        ({"oracle": _wrong_way}, "oracle solves", "the oracle did not solve seed 0"),
        ({"oracle": _acting_oracle}, "oracle changes nothing", "asking the oracle changes the episode"),
        ({"tools": lambda self: [{"name": "add"}]}, "tools", "a tool is not of the shape"),
        ({"render": _three}, "render", "render returned a int"),
    ],
)
def test_a_broken_promise_fails_its_check(methods: Any, check: str, reason: str) -> None:
    report = check_env(_broken(**methods))
    [failed] = [c for c in report.checks if c.name == check]
    assert failed.outcome == "fail"
    assert re.search(reason, failed.reason), failed.reason


def test_only_the_broken_promise_fails() -> None:
    report = check_env(_broken(step=_stepping(truncated=0)))
    assert [check.name for check in report.failures] == ["flags are bools"]


def test_grades() -> None:
    async def noisy_step(self: Sum, action: str) -> Any:
        return (await Sum.step(self, action))._replace(observation=f"at {next(_ticks)}")

    assert check_env(_broken()).determinism == "exact"
    assert check_env(_broken(step=noisy_step)).determinism == "seeded"
    assert check_env(_broken(reset=_unseeded)).determinism == "noisy"


def test_declared_noise_is_no_failure() -> None:
    register("t/Noisy-v0", _broken(reset=_unseeded), nondeterministic=True)
    report = check_env("t/Noisy-v0")
    assert _outcomes(report)["seed"] == "skip"
    assert report.ok
    assert report.determinism == "noisy"


def test_a_replay_that_crashes_is_noise() -> None:
    async def crashing_reset(self: Sum, **kwargs: Any) -> Any:
        first = await Sum.reset(self, **kwargs)
        if next(_ticks) % 2:
            raise RuntimeError("sometimes")
        return first

    report = check_env(_broken(reset=crashing_reset))
    assert not report.ok
    assert report.determinism in (None, "noisy")
