import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.gymnasium import AnyText
from palaestra.envs.vector.description import NoDescriptionError, describe, rebuild
from palaestra.envs.vector.packing import pack, unpack

bounds = st.tuples(st.floats(-9, 9), st.floats(10, 20) | st.just(np.inf))
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
boxes = st.builds(
    lambda pair, shape, dtype: spaces.Box(*pair, shape, dtype),
    bounds,
    shapes,
    st.sampled_from([np.float16, np.float32, np.float64]),
)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)
fixed = (
    boxes
    | st.builds(lambda low, shape: spaces.Box(low, 200, shape, np.uint8), st.integers(0, 9), shapes)
    | st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-9, 9))
    | sizes.map(lambda nvec: spaces.MultiDiscrete(nvec, np.int32, start=[-1] * len(nvec)))
    | (st.integers(1, 9) | sizes).map(spaces.MultiBinary)
)
texts = st.builds(
    lambda least, most, characters: spaces.Text(most, min_length=least, charset=characters),
    st.integers(0, 3),
    st.integers(3, 9),
    st.text(min_size=1),
)
leaves = (
    fixed
    | texts
    | st.builds(AnyText)
    | st.builds(lambda space, stack: spaces.Sequence(space, stack=stack), boxes, st.booleans())
    | st.builds(spaces.Graph, boxes, st.none() | boxes)
)
any_space = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(spaces.Dict)
        | st.lists(inner, max_size=3).map(spaces.Tuple)
        | st.lists(inner, min_size=1, max_size=3).map(spaces.OneOf)
    ),
    max_leaves=6,
)


@given(any_space)
def test_spaces_come_back_equal(space: spaces.Space) -> None:
    packed = pack(describe(space))
    back = rebuild(unpack(packed))
    assert back == space
    assert type(back) is type(space)
    assert pack(describe(back)) == packed
    space.seed(3)
    back.seed(3)
    assert repr(back.sample()) == repr(space.sample())


class Strange(spaces.Discrete):
    pass


def test_foreign_types_have_no_description() -> None:
    with pytest.raises(NoDescriptionError, match="Strange"):
        rebuild(unpack(pack(describe(spaces.Tuple([Strange(3)])))))
    assert describe(Strange(3)) == describe(Strange(3)) != describe(Strange(4))
