"""Any Gymnasium environment, played by an agent through text."""

import asyncio
from typing import Any, get_args

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from palaestra import make, register
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import RandomAgent, ScriptedAgent
from palaestra.envs import registry
from palaestra.envs.gymnasium import describe_action, describe_observation, parse_action
from palaestra.envs.isolation.placement import Kind
from palaestra.envs.tasks import Task
from palaestra.trajectories.record import Trajectory

PLACES = [kind for kind in get_args(Kind) if kind in ("inline", "thread", "process")]

dtypes = st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.int8, np.int32, np.int64])
shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
boxes = st.builds(
    lambda dtype, low, room, shape: spaces.Box(low, low + room, shape, dtype),
    dtypes,
    st.integers(0, 60),
    st.integers(0, 60),
    shapes,
)
unbounded = st.builds(
    lambda dtype, shape: spaces.Box(-np.inf, np.inf, shape, dtype), st.sampled_from([np.float32, np.float64]), shapes
)
wide = st.just(spaces.Box(-(2**62), 2**62, (3,), np.int64))
discrete = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 99), st.integers(-99, 99))
texts = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1).map(
    lambda chars: spaces.Text(8, charset=chars)
)
several = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(spaces.MultiDiscrete)
binary = st.integers(1, 5).map(spaces.MultiBinary)
flat = discrete | boxes | unbounded | wide | several | binary | texts
any_space = st.recursive(
    flat,
    lambda inner: (
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(spaces.Dict)
        | st.lists(inner, max_size=3).map(spaces.Tuple)
    ),
    max_leaves=6,
)


@given(any_space, st.integers(0, 2**31))
def test_every_action_can_be_written_and_is_read_as_itself(space: Any, seed: int) -> None:
    space.seed(seed)
    action = space.sample()
    read = parse_action(space, describe_action(space, action))
    assert space.contains(read)
    assert describe_action(space, read) == describe_action(space, action)  # which has every digit


@given(discrete | boxes | unbounded | wide | several | binary | texts, st.integers(0, 2**31))
def test_what_is_seen_of_a_flat_space_loses_nothing(space: Any, seed: int) -> None:
    space.seed(seed)
    seen = space.sample()
    assert np.array_equal(parse_action(space, describe_observation(seen)), seen)


@given(
    any_space, st.text() | st.sampled_from(["[" * 100_000, '{"a": ' * 100_000, "null", "[]", "{}", "nan", "1e999", "-"])
)
def test_any_text_is_an_action_or_a_hint_for_every_space(space: Any, text: str) -> None:
    try:
        action = parse_action(space, text)
    except ValueError:
        return
    assert space.contains(action)


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))


def played(id: str, agent: Any, steps: int, count: int = 3) -> list[Trajectory]:
    episodes = [Episode(task=Task(env=id, name=str(i), seed=i), id=str(i)) for i in range(count)]
    return asyncio.run(rollout(episodes, agent, make, RolloutLimits(max_turns=steps)))


def story(records: list[Trajectory]) -> list[Any]:
    """What happened, without when."""
    return [
        (
            record.status,
            record.final_observation,
            [(s.observation, s.action, s.reward, s.state_hash) for s in record.steps],
        )
        for record in records
    ]


@pytest.mark.parametrize("kind", PLACES)
def test_cart_pole_is_played_everywhere_alike(kind: Kind) -> None:
    register("x/CartPole-v0", "gymnasium.envs.classic_control:CartPoleEnv", placement=kind, max_episode_steps=60)
    agent = RandomAgent()
    records = played("x/CartPole-v0", agent, 100)
    assert all(record.status == "ok" for record in records)
    assert all(step.reward == 1.0 for record in records for step in record.steps)
    inline = registry.register(
        "x/Inline-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=60, placement="inline"
    )
    assert story(records) == story(played(inline.id, agent, 100))


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize(
    ("actions", "text", "seen"),
    [
        ("box", "[0.25, -1]", "array([ 0.25, -1.  ], dtype=float32)"),
        ("text", "hello", "'hello'"),
        ("dict", '{"go": [2, 1], "say": "hi"}', "{'go': array([2, 1]), 'say': 'hi'}"),
        ("tuple", "[[1, 2], [0, 1]]", "(array([1, 2]), array([0, 1], dtype=int8))"),
    ],
)
def test_every_kind_of_action_reaches_the_environment(kind: Kind, actions: str, text: str, seen: str) -> None:
    id = f"x/Echo{actions.capitalize()}-v0"
    register(id, "support.vector_envs:Echo", kwargs={"actions": actions}, placement=kind)
    [record] = played(id, ScriptedAgent(["nonsense, not an action!", text] * 4), 10, count=1)
    assert (record.status, record.error, record.total_reward) == ("ok", "", 4.0)
    assert [step.invalid for step in record.steps] == [True, False] * 4
    assert record.final_observation == f"place: [4, 9]\nheard: {seen}"
    assert record.steps[1].observation.endswith("\nplace: [0, 9]\nheard: nothing")
    assert record.steps[1].observation.startswith("'nonsense, not an action!' is not an action; write ")
