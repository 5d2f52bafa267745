"""What `PoolVectorEnv` returns is what `SyncVectorEnv` returns, to the type."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import vector_envs

from palaestra import as_gymnasium
from palaestra.envs.vector import PoolVectorEnv

COUNT = 3
SOURCES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "cartpole": ("CartPole-v1", lambda: gymnasium.make("CartPole-v1")),
    "frozen lake": (gymnasium.spec("FrozenLake-v1"), lambda: gymnasium.make("FrozenLake-v1")),
    "blackjack": ("Blackjack-v1", lambda: gymnasium.make("Blackjack-v1")),
    "mixed": (vector_envs.mixed, vector_envs.mixed),
    "words": ("support.vector_envs:words", vector_envs.words),
    "loose": (vector_envs.loose, vector_envs.loose),
    "strange": (vector_envs.strange, vector_envs.strange),
    "half": (vector_envs.half, vector_envs.half),
    "household": ("alfworld/Household-v0", lambda: as_gymnasium("alfworld/Household-v0")),
}

Pair = tuple[PoolVectorEnv, SyncVectorEnv]


@pytest.fixture(scope="module", params=list(AutoresetMode), ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> AutoresetMode:
    return request.param


@pytest.fixture(scope="module", params=list(SOURCES))
def pair(request: pytest.FixtureRequest, mode: AutoresetMode) -> Iterator[Pair]:
    source, make = SOURCES[request.param]
    ours = PoolVectorEnv(source, COUNT, workers=2, autoreset_mode=mode)
    theirs = SyncVectorEnv([make] * COUNT, autoreset_mode=mode)
    yield ours, theirs
    ours.close()
    theirs.close()


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal, with equal types and dtypes, all the way down."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}[{key!r}]")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
        if theirs.dtype == object:
            assert_same(ours.tolist(), theirs.tolist(), where)
        else:
            np.testing.assert_array_equal(ours, theirs, where)
    else:
        assert ours == theirs, where


seeds = st.integers(0, 2**31)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=seeds | st.lists(seeds, min_size=COUNT, max_size=COUNT),
    options=st.none() | st.just({"level": 3}),
    sample=seeds,
    steps=st.integers(1, 30),
)
def test_every_step_is_the_same(pair: Pair, seed: Any, options: Any, sample: int, steps: int) -> None:
    ours, theirs = pair
    assert_same(ours.reset(seed=seed, options=options), theirs.reset(seed=seed, options=options))
    ours.action_space.seed(sample)
    for number in range(steps):
        actions = ours.action_space.sample()
        got, expected = ours.step(actions), theirs.step(actions)
        assert_same(got, expected, f"step {number}")
        over = expected[2] | expected[3]
        if ours.autoreset_mode is AutoresetMode.DISABLED and over.any():
            again = [sample + i for i in range(COUNT)]
            assert_same(
                ours.reset(seed=again, options={"reset_mask": over}),
                theirs.reset(seed=again, options={"reset_mask": over}),
            )


def test_spaces_and_metadata_are_the_same(pair: Pair) -> None:
    ours, theirs = pair
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space", "num_envs"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.render_mode == theirs.render_mode


def test_observations_are_in_the_space(pair: Pair) -> None:
    ours, theirs = pair
    assert (ours.reset(seed=1)[0] in ours.observation_space) == (theirs.reset(seed=1)[0] in theirs.observation_space)


def test_calls_and_attributes_are_the_same() -> None:
    ours = PoolVectorEnv(vector_envs.mixed, 3, workers=2)
    theirs = SyncVectorEnv([vector_envs.mixed] * 3)
    try:
        for envs in (ours, theirs):
            envs.reset(seed=4)
            envs.set_attr("speed", [1, 2, 3])
        assert_same(ours.get_attr("speed"), theirs.get_attr("speed"))
        assert_same(ours.call("twice", np.arange(3), plus=2), theirs.call("twice", np.arange(3), plus=2))
        assert_same(ours.render(), theirs.render())
        assert_same(ours.np_random_seed, theirs.np_random_seed)
        ours.set_attr("speed", 5)
        assert ours.get_attr("speed") == (5, 5, 5)
        with pytest.raises(ValueError, match="2 values for 3 environments"):
            ours.set_attr("speed", [1, 2])
    finally:
        ours.close()
        theirs.close()


def test_wrong_seeds_and_masks_are_refused_alike() -> None:
    ours, theirs = (
        PoolVectorEnv("CartPole-v1", 2, workers=1),
        SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2),
    )
    none, wrong = np.zeros(2, bool), np.ones(3, bool)
    try:
        ours.reset()
        theirs.reset()
        for envs in (ours, theirs):
            for mask in (none, wrong):
                with pytest.raises(ValueError, match="reset_mask"):
                    envs.reset(options={"reset_mask": mask})
            for mask in ([True, True], np.ones(2, int)):
                with pytest.raises(TypeError, match="reset_mask"):
                    envs.reset(options={"reset_mask": mask})
            with pytest.raises(ValueError, match="seeds"):
                envs.reset(seed=[1])
    finally:
        ours.close()
        theirs.close()
