import enum
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palaestra import Task
from palaestra.envs.vector.packing import pack, unpack
from palaestra.errors import DataError, EnvError

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
dtypes = arrays.scalar_dtypes()
numbers = dtypes.flatmap(lambda dtype: arrays.arrays(dtype, ()).map(lambda array: array[()]))
any_arrays = dtypes.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0)))
values = st.recursive(
    plain | numbers | any_arrays | st.frozensets(st.integers()) | st.sets(st.text()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


@given(values)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(unpack(pack(value)), value)


def test_arrays_of_objects_and_tasks() -> None:
    array = np.array([None, "a", (1, np.float32(2))], dtype=object)
    back = unpack(pack(array))
    assert back.dtype == object
    assert same(back.tolist(), array.tolist())
    task = Task(env="a/B-v0", name="c", params={"d": 1}, seed=3)
    assert unpack(pack({"task": task})) == {"task": task}


def test_arrays_that_come_back_can_be_written_to() -> None:
    array = unpack(pack(np.zeros(2)))
    array[0] = 1


class Colour(enum.Enum):
    RED = 1


class Named(enum.StrEnum):
    RED = "red"


class Numbered(enum.IntEnum):
    RED = 5


def test_enumerations_of_plain_values_become_plain() -> None:
    assert unpack(pack([Named.RED, Numbered.RED])) == ["red", 5]


@pytest.mark.parametrize("value", [object(), Colour.RED, {"a": [lambda: 0]}, np.zeros(1, [("a", "i4")])])
def test_what_no_message_can_carry(value: Any) -> None:
    with pytest.raises(EnvError, match="cannot send this"):
        pack(value)


def test_endless_values_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EnvError, match="cannot send this"):
        pack(endless)


@given(st.binary())
def test_nonsense_is_an_error_or_a_value(packed: bytes) -> None:
    with suppress(DataError):
        unpack(packed)
