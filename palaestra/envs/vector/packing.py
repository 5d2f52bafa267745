"""Values of environments as msgpack, in which NumPy's types, tuples and sets come back as what they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from gymnasium.spaces import GraphInstance

from palaestra.envs.tasks import Task
from palaestra.errors import DataError, EnvError

_ARRAY, _NUMBER, _TUPLE, _SET, _FROZENSET, _TASK, _INTEGER, _GRAPH = range(1, 9)

_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_GROUPS: dict[type[Any], int] = {GraphInstance: _GRAPH, tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}

_BASES: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int, float: float, list: list}
"""What their subclasses, enumerations for example, are sent as."""


def pack(value: Any) -> bytes:
    """A value as msgpack.

    Raises:
        EnvError: it holds what no message can carry.
    """
    try:
        return msgspec.msgpack.encode(_wrapped(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EnvError(f"cannot send this to or from a worker: {error}; use JSON values or arrays") from error


def unpack(packed: bytes | memoryview) -> Any:
    """What `pack` packed.

    Raises:
        DataError: it is nothing of the kind.
    """
    try:
        return _DECODER.decode(packed)
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"a worker sent what is no message: {error}") from error


def _wrapped(value: Any) -> Any:
    kind = value.__class__
    if kind in _PLAIN:
        return _integer(value) if kind is int and not -(2**63) <= value < 2**64 else value
    if isinstance(value, dict):
        return {_wrapped(key): _wrapped(item) for key, item in value.items()}
    if kind is list:
        return [_wrapped(item) for item in value]
    return _extended(value)


def _integer(value: int) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_INTEGER, str(value).encode())


def _extended(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        return msgspec.msgpack.Ext(_NUMBER, _array(np.asarray(value)).data)
    for kind, code in _GROUPS.items():
        if isinstance(value, kind):
            items: Iterable[Any] = value
            return msgspec.msgpack.Ext(code, msgspec.msgpack.encode([_wrapped(item) for item in items]))
    if isinstance(value, Task):
        return msgspec.msgpack.Ext(_TASK, msgspec.msgpack.encode(value))
    for base, plain in _BASES.items():
        if isinstance(value, base):
            return _wrapped(plain(value))
    raise TypeError(f"no message can carry a {type(value).__name__}")


def _array(array: np.ndarray[Any, Any]) -> msgspec.msgpack.Ext:
    if array.dtype.hasobject:
        items = [_wrapped(item) for item in array.ravel().tolist()]
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(["O", array.shape, items]))
    if array.dtype.names:
        raise TypeError("no message can carry an array of records")
    return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode([array.dtype.str, array.shape, array.tobytes()]))


def _unwrapped_array(packed: memoryview) -> np.ndarray[Any, Any]:
    dtype, shape, data = _DECODER.decode(packed)
    if dtype == "O":
        array = np.empty(len(data), object)
        for i, item in enumerate(data):
            array[i] = item
        return array.reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape).copy()


_UNWRAP: dict[int, Callable[[memoryview], Any]] = {
    _ARRAY: _unwrapped_array,
    _NUMBER: lambda packed: _unwrapped_array(packed)[()],
    _TUPLE: lambda packed: tuple(_DECODER.decode(packed)),
    _SET: lambda packed: set(_DECODER.decode(packed)),
    _FROZENSET: lambda packed: frozenset(_DECODER.decode(packed)),
    _TASK: lambda packed: msgspec.msgpack.decode(packed, type=Task),
    _INTEGER: lambda packed: int(bytes(packed)),
    _GRAPH: lambda packed: GraphInstance(*_DECODER.decode(packed)),
}


def _unwrapped(code: int, packed: memoryview) -> Any:
    if code not in _UNWRAP:
        raise ValueError(f"there is no type {code}")
    return _UNWRAP[code](packed)


_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_unwrapped)
