"""Where the values of a space lie: those of fixed size in shared memory, leaf by leaf; the rest goes in messages.

A leaf is a space without parts of its own. `Box`, `Discrete`, `MultiDiscrete` and `MultiBinary` are of fixed size;
text, sequences, graphs and whatever else there is are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import index
from typing import Any

import numpy as np
from gymnasium import spaces

Array = np.ndarray[Any, Any]
Put = Callable[[int, Any], None]
"""Stores one environment's value under its number."""

_FIXED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ALIGNMENT = 64


def parts(space: spaces.Space[Any]) -> dict[Any, spaces.Space[Any]] | None:
    """The parts of a `Dict` or `Tuple`, by key; `None` for a leaf."""
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None


def leaves(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """All leaves, in the order of the parts."""
    inner = parts(space)
    if inner is None:
        yield space
        return
    for part in inner.values():
        yield from leaves(part)


def fixed(leaf: spaces.Space[Any]) -> bool:
    """Whether all values of a leaf have the same size."""
    return isinstance(leaf, _FIXED)


class Columns:
    """The values of `count` environments, for every leaf of a space: an array, or a list where sizes differ.

    Args:
        space: of one environment.
        count: how many environments.
        buffer: at least `size_of(space, count)` bytes from `start` on.
    """

    def __init__(self, space: spaces.Space[Any], count: int, buffer: Any, start: int = 0) -> None:
        self.space = space
        self.columns: list[Any] = []
        for leaf in leaves(space):
            if not fixed(leaf):
                self.columns.append([None] * count)
                continue
            shape = (count, *_shape(leaf))
            self.columns.append(np.ndarray(shape, leaf.dtype, buffer, start))
            start += _room(leaf, count)
        self.loose = [column for column in self.columns if isinstance(column, list)]
        """The lists, in their order."""
        self.arrays = [column for column in self.columns if not isinstance(column, list)]

    def tree(self, copy: bool = False) -> Any:
        """All of it in the shape of Gymnasium's batched space; arrays are views unless copied."""
        return _grown(self.space, iter(self.columns), copy)

    def rows(self, first: int, last: int) -> Any:
        """A copy of what some of the environments have, in the shape of a batched space for so many."""
        return _grown(self.space, iter([column[first:last] for column in self.columns]), copy=True)

    def put(self) -> Put:
        """A function that stores one environment's value."""
        return _putter(self.space, iter(self.columns), "")

    def put_all(self, batch: Any) -> None:
        """Store the values of all environments, given as Gymnasium's batched space has them.

        Raises:
            ValueError, TypeError, KeyError: it is no such batch.
        """
        _spread(self.space, iter(self.columns), batch)


def size_of(space: spaces.Space[Any], count: int) -> int:
    """Bytes of shared memory that the values of `count` environments need."""
    return sum(_room(leaf, count) for leaf in leaves(space) if fixed(leaf))


def _shape(leaf: spaces.Space[Any]) -> tuple[int, ...]:
    assert leaf.shape is not None
    return tuple(leaf.shape)


def _room(leaf: spaces.Space[Any], count: int) -> int:
    assert leaf.dtype is not None
    size = count * int(np.prod(_shape(leaf), dtype=np.int64)) * leaf.dtype.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _grown(space: spaces.Space[Any], columns: Iterator[Any], copy: bool) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _grown(part, columns, copy) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_grown(part, columns, copy) for part in space.spaces)
    column = next(columns)
    if isinstance(column, list):
        return tuple(column)
    return column.copy() if copy else column


def _putter(space: spaces.Space[Any], columns: Iterator[Any], where: str) -> Put:
    inner = parts(space)
    if inner is None:
        column = next(columns)
        if isinstance(column, list):
            return column.__setitem__
        return _scalar(column, where) if isinstance(space, spaces.Discrete) else _rows(column, where)
    puts = [(key, _putter(part, columns, f"{where}[{key!r}]")) for key, part in inner.items()]

    def put(number: int, value: Any) -> None:
        for key, each in puts:
            each(number, value[key])

    return put


def _scalar(column: Array, where: str) -> Put:
    def put(number: int, value: Any) -> None:
        try:
            column[number] = index(value)
        except TypeError:
            raise TypeError(f"the observation{where} is a {type(value).__name__}, not a whole number") from None

    return put


def _rows(column: Array, where: str) -> Put:
    rows: Sequence[Array] = [column[number : number + 1].reshape(column.shape[1:]) for number in range(len(column))]
    dtype, shape = column.dtype, column.shape[1:]

    def put(number: int, value: Any) -> None:
        if value.__class__ is not np.ndarray or value.dtype != dtype or value.shape != shape:
            value = _fitting(value, dtype, shape, where)
        rows[number][...] = value

    return put


def _fitting(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"the observation{where} has shape {array.shape}, and its space {shape}")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"the observation{where} holds {array.dtype}, and its space {dtype}")
    return array


def _spread(space: spaces.Space[Any], columns: Iterator[Any], batch: Any) -> None:
    inner = parts(space)
    if inner is not None:
        for key, part in inner.items():
            _spread(part, columns, batch[key])
        return
    column = next(columns)
    if isinstance(column, list):
        if len(batch) != len(column):
            raise ValueError(f"there are {len(batch)} values for {len(column)} environments")
        column[:] = batch
        return
    array = batch if isinstance(batch, np.ndarray) else np.asarray(batch)
    if array.shape != column.shape:
        raise ValueError(f"their shape is {array.shape}; that of {len(column)} environments is {column.shape}")
    np.copyto(column, array, casting="same_kind")
