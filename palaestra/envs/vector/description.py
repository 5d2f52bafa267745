"""Spaces as plain values, by which another process makes them again, or knows that its own are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from palaestra.envs.gymnasium import AnyText

Space = spaces.Space[Any]


class NoDescriptionError(Exception):
    """A space of a type that is not Gymnasium's own."""


def describe(space: Space) -> list[Any]:
    """What fixes a space but its generator, for `packing.pack`. Equal spaces have equal descriptions.

    Of a space of a foreign type it is its name and what it prints.
    """
    name = type(space).__name__
    if type(space) in _FACTS:
        return [name, *_FACTS[type(space)](space)]
    return ["", f"{type(space).__module__}:{name}", repr(space)]


def rebuild(description: list[Any]) -> Space:
    """The space that `describe` described.

    Raises:
        NoDescriptionError: it is, or holds, one of a foreign type.
    """
    name, *facts = description
    if name not in _MAKERS:
        raise NoDescriptionError(" ".join(map(str, facts)))
    return _MAKERS[name](*facts)


def _inner(parts: Any) -> list[Any]:
    return [describe(part) for part in parts]


_FACTS: dict[type, Callable[[Any], list[Any]]] = {
    AnyText: lambda space: [],
    spaces.Box: lambda space: [space.low, space.high, space.dtype.str],
    spaces.Discrete: lambda space: [int(space.n), int(space.start), space.dtype.str],
    spaces.MultiDiscrete: lambda space: [space.nvec, space.start, space.dtype.str],
    spaces.MultiBinary: lambda space: [space.n if isinstance(space.n, int) else list(map(int, space.n))],
    spaces.Text: lambda space: [int(space.max_length), int(space.min_length), "".join(space.character_list)],
    spaces.Dict: lambda space: [list(space.spaces), _inner(space.spaces.values())],
    spaces.Tuple: lambda space: [_inner(space.spaces)],
    spaces.OneOf: lambda space: [_inner(space.spaces)],
    spaces.Sequence: lambda space: [describe(space.feature_space), bool(space.stack)],
    spaces.Graph: lambda space: [
        describe(space.node_space),
        None if space.edge_space is None else describe(space.edge_space),
    ],
}


def _discrete(n: int, start: int, dtype: str) -> Space:
    chosen = {} if np.dtype(dtype) == np.int64 else {"dtype": np.dtype(dtype)}  # older versions know no other
    return spaces.Discrete(n, start=start, **chosen)  # type: ignore[call-overload,no-any-return]


_MAKERS: dict[str, Callable[..., Space]] = {
    "AnyText": AnyText,
    "Box": lambda low, high, dtype: spaces.Box(low, high, dtype=np.dtype(dtype).type),
    "Discrete": _discrete,
    "MultiDiscrete": lambda nvec, start, dtype: spaces.MultiDiscrete(nvec, np.dtype(dtype).type, start=start),
    "MultiBinary": spaces.MultiBinary,
    "Text": lambda most, least, characters: spaces.Text(most, min_length=least, charset=characters),
    "Dict": lambda keys, parts: spaces.Dict(list(zip(keys, map(rebuild, parts), strict=True))),
    "Tuple": lambda parts: spaces.Tuple([rebuild(part) for part in parts]),
    "OneOf": lambda parts: spaces.OneOf([rebuild(part) for part in parts]),
    "Sequence": lambda part, stack: spaces.Sequence(rebuild(part), stack=stack),
    "Graph": lambda node, edge: spaces.Graph(rebuild(node), None if edge is None else rebuild(edge)),
}
