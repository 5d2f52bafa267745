import asyncio
import gc
import random
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given
from hypothesis import strategies as st

from palaestra import Env, Reset, Step, Task, as_gymnasium, make, register
from palaestra.envs import registry
from palaestra.envs.core import SupportsRender
from palaestra.envs.gymnasium import AnyText, FromGymnasium, describe_observation, parse_action
from palaestra.errors import EnvError


class Guess(Env[str, str]):
    """Say the hidden digit."""

    def __init__(self, digits: int = 10) -> None:
        self.digits = digits
        self.closed = 0

    async def reset(self, *, seed: int | None = None, task: Task | None = None, options: Any = None) -> Reset[str]:
        self.options = options
        self.hidden = str(task.params["hidden"]) if task else str(random.Random(seed).randrange(self.digits))
        return Reset(f"Guess a digit below {self.digits}. Hint: {self.hidden}.", {})

    async def step(self, action: str) -> Step[str]:
        await asyncio.sleep(0)  # really waits once, so a loop is needed
        won = action == self.hidden
        return Step("Right." if won else "Wrong.", float(won), won, False, {"success": won})

    async def close(self) -> None:
        self.closed += 1

    async def render(self) -> str:
        return f"hidden: {self.hidden}"


class Walk(gymnasium.Env[Any, Any]):
    """A plain synchronous environment: reach 3 on a line."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"]}
    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, start: int = 0, render_mode: str | None = None) -> None:
        self.start, self.render_mode = start, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = (options or {}).get("place", self.start) + int(self.np_random.integers(2))
        return self._see(), {"action_mask": np.array([0, 1, 1], np.int8)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place += int(action) - 1
        return self._see(), np.float32(-0.5), np.bool_(self.place >= 3), False, {"is_success": self.place >= 3}

    def render(self) -> str:
        return f"at {self.place}"

    def _see(self) -> Any:
        return np.array([self.place, 0.1], np.float32)


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


@pytest.fixture
def guess() -> Iterator[Any]:
    env = as_gymnasium(Guess())
    yield env
    env.close()


def test_as_gymnasium_passes_gymnasiums_own_checker(guess: Any) -> None:
    gymnasium_check_env(guess, skip_render_check=True)  # which needs a spec; the next test does it


def test_as_gymnasium_passes_the_checker_with_wrappers() -> None:
    register("t/Guess-v0", Guess, max_episode_steps=5)
    gymnasium_check_env(as_gymnasium("t/Guess-v0", digits=4))


def test_the_household_passes_gymnasiums_checker() -> None:
    gymnasium_check_env(as_gymnasium("alfworld/Household-v0"))


def test_calls_return_gymnasiums_tuples(guess: Any) -> None:
    observation, info = guess.reset(seed=3)
    assert observation.startswith("Guess a digit")
    assert info == {}
    assert guess.step(guess.env.hidden) == ("Right.", 1.0, True, False, {"success": True})
    assert guess.render() is None


def test_render_mode_ansi() -> None:
    env = as_gymnasium(Guess(), render_mode="ansi")
    env.reset(options={"task": Task(env="t/Guess-v0", name="eight", params={"hidden": 8})})
    assert env.render() == "hidden: 8"
    env.close()
    with pytest.raises(EnvError, match="no render mode 'human'"):
        as_gymnasium(Guess(), render_mode="human")


def test_gymnasium_makes_it_again_from_its_own_spec() -> None:
    register("t/Guess-v0", Guess, max_episode_steps=5)
    made = as_gymnasium("t/Guess-v0", digits=4).spec.make()
    assert made.unwrapped.env.spec.kwargs == {"digits": 4}
    assert "below 4" in made.reset(seed=1)[0]
    made.close()


def test_one_seeded_reset_fixes_all_later_episodes(guess: Any) -> None:
    def seen() -> list[str]:
        return [guess.reset(seed=7)[0], *(guess.reset()[0] for _ in range(5))]

    first = seen()
    assert seen() == first
    assert len(set(first)) > 1


def test_a_task_and_options_are_passed_on(guess: Any) -> None:
    task = Task(env="t/Guess-v0", name="eight", params={"hidden": 8})
    assert "Hint: 8" in guess.reset(options={"task": task, "other": 1})[0]
    assert guess.env.options == {"other": 1}


def test_it_works_inside_a_running_loop(guess: Any) -> None:
    async def notebook() -> float:
        guess.reset(seed=1)
        return float(guess.step(guess.env.hidden)[1])

    assert asyncio.run(notebook()) == 1.0
    guess.reset(seed=1)  # and outside again


def test_close_twice_and_no_use_after_it() -> None:
    env = as_gymnasium(Guess())
    env.close()
    env.close()
    assert env.env.closed == 1  # type: ignore[attr-defined]
    with pytest.raises(EnvError, match="is closed"):
        env.reset()


def test_an_unclosed_environment_leaks_no_loop(recwarn: pytest.WarningsRecorder) -> None:
    env = as_gymnasium(Guess())
    env.reset(seed=1)
    del env
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_arguments_need_an_id() -> None:
    with pytest.raises(EnvError, match="only with an id"):
        as_gymnasium(Guess(), digits=3)


def test_messages_become_json() -> None:
    class Chat(Guess):
        async def reset(self, **kwargs: Any) -> Any:
            return Reset([{"role": "user", "content": "é"}], {})

    env = as_gymnasium(Chat())
    assert env.reset()[0] == '[{"role": "user", "content": "é"}]'
    env.close()


def test_any_text_holds_any_text_and_samples_by_seed() -> None:
    assert "a\n\u4e2d" in AnyText()
    assert 3 not in AnyText()
    assert AnyText(seed=1).sample() == AnyText(seed=1).sample()
    assert AnyText() == AnyText()


def test_register_accepts_a_plain_gymnasium_environment() -> None:
    register("t/Walk-v0", max_episode_steps=9)(Walk)

    async def play() -> list[Any]:
        env = make("t/Walk-v0", start=1)
        assert isinstance(env.unwrapped, FromGymnasium)
        first = await env.reset(seed=0)
        assert first.info["admissible_commands"] == ["1", "2"]
        place = env.unwrapped.env.unwrapped.place  # type: ignore[attr-defined]
        steps = [await env.step("2") for _ in range(3 - place)]
        await env.close()
        return [first, steps[0], steps[-1]]

    first, one, last = asyncio.run(play())
    assert first.observation in {"[1.0, 0.1]", "[2.0, 0.1]"}
    assert type(one.reward) is float
    assert type(one.terminated) is bool
    assert last.info["success"] is True
    assert last.terminated


def test_a_gymnasium_id_by_string() -> None:
    spec = register("gym/CartPole-v1", "gymnasium:make", kwargs={"id": "CartPole-v1"})
    env = make(registry.EnvSpec.from_json(spec.to_json()))

    async def play() -> Any:
        first = await env.reset(seed=3)
        await env.step("1")
        await env.close()
        return first

    assert asyncio.run(play()).observation.count(",") == 3


def test_text_that_is_no_action_is_answered_and_does_not_move() -> None:
    async def play() -> tuple[Any, Any, Any]:
        env = FromGymnasium(Walk())
        first = await env.reset(seed=0)
        refused = await env.step("forwards")
        return first, refused, await env.step(np.int64(2))

    first, refused, native = asyncio.run(play())
    assert refused.observation == f"'forwards' is not an action; write one number from 0 to 2.\n{first.observation}"
    assert refused.info["invalid"]
    assert refused.reward == 0.0
    assert "invalid" not in native.info
    assert native.reward == -0.5


def test_a_refusal_before_reset_is_an_error() -> None:
    with pytest.raises(EnvError, match="before reset"):
        asyncio.run(FromGymnasium(Walk()).step("x"))


def test_a_task_gives_seed_and_options() -> None:
    task = Task(env="t/Walk-v0", name="far", seed=5, params={"place": -4})
    by_task = asyncio.run(FromGymnasium(Walk()).reset(task=task))
    by_hand = asyncio.run(FromGymnasium(Walk()).reset(seed=5, options={"place": -4}))
    assert by_task.observation == by_hand.observation


def test_render_is_offered_exactly_where_text_is_drawn() -> None:
    drawn = FromGymnasium(Walk(render_mode="ansi"))
    asyncio.run(drawn.reset(seed=0, options={"place": 0}))
    assert isinstance(drawn, SupportsRender)
    assert asyncio.run(drawn.render()).startswith("at ")
    assert not isinstance(FromGymnasium(Walk()), SupportsRender)


@pytest.mark.parametrize(
    ("space", "text", "action"),
    [
        (spaces.Discrete(3, start=5), " 7 ", np.int64(7)),
        (spaces.Box(-1, 1, (2,), np.float32), "[0.5, -1]", np.array([0.5, -1], np.float32)),
        (spaces.Box(-1, 1, (2, 2), np.float64), "0 1; 1e-1 .5", np.array([[0, 1], [0.1, 0.5]])),
        (spaces.MultiDiscrete([3, 2]), "2 1", np.array([2, 1])),
        (spaces.MultiBinary(3), "1,0,1", np.array([1, 0, 1], np.int8)),
        (spaces.Text(5), "abc", "abc"),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(3)), '{"a": 1, "b": "x"}', {"a": 1, "b": "x"}),
        (
            spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2))),
            "[1, [0, 1]]",
            (np.int64(1), np.array([0, 1], np.int8)),
        ),
    ],
)
def test_actions_are_read_by_their_space(space: Any, text: str, action: Any) -> None:
    read = parse_action(space, text)
    assert space.contains(read)
    assert data_equivalence(read, action) or np.array_equal(read, action)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (spaces.Discrete(3), "3"),
        (spaces.Discrete(3), "1.0"),
        (spaces.Box(-1, 1, (2,), np.float32), "0.5"),
        (spaces.Box(-1, 1, (2,), np.float32), "0.5 left"),
        (spaces.Box(-1, 1, (1,), np.float32), "1e999"),
        (spaces.MultiDiscrete([3, 2]), "1.5 1"),
        (spaces.Text(3), "long"),
        (spaces.Dict(a=spaces.Discrete(2)), "{"),
    ],
)
def test_text_outside_the_space_says_what_to_write(space: Any, text: str) -> None:
    with pytest.raises(ValueError, match="is not an action; write "):
        parse_action(space, text)


@given(st.text(), st.sampled_from([spaces.Discrete(3), spaces.Box(-1, 1, (1,)), spaces.MultiBinary(2)]))
def test_any_text_is_an_action_or_a_hint(text: str, space: Any) -> None:
    try:
        action = parse_action(space, text)
    except ValueError:
        return
    assert space.contains(action)


def test_observations_keep_every_digit() -> None:
    assert describe_observation(np.arange(2000)).count(",") == 1999
    assert describe_observation({"a": np.float32(0.1), "b": (1, "x")}) == "a: 0.1\nb: 1\nx"
    assert describe_observation(np.array([0.1, 1 / 3])) == "[0.1, 0.3333333333333333]"
