"""Gymnasium environments under test in vectors: workers import them by name."""

from __future__ import annotations

import os
import signal
import string
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


def text() -> spaces.Text:
    """Never the same object twice: spaces hold generators."""
    return spaces.Text(12, charset="abcdefgh ")


class Drawn(gymnasium.Env[Any, Any]):
    """Observations are drawn from the space, episodes end by chance, and infos are of every kind."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any], render_mode: str | None = None):
        self.observation_space, self.action_space, self.render_mode = observations, actions, render_mode
        self.speed = 1
        self.actions: list[str] = []

    metadata = {"render_modes": ["rgb_array"]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.actions = []
        return self.observation_space.sample(), {"options": str(options), "draw": int(self.np_random.integers(9))}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.actions.append(repr(action))
        draw = float(self.np_random.random())
        return self.observation_space.sample(), np.float32(draw), draw < 0.2, np.bool_(draw > 0.9), self._info(draw)

    def _info(self, draw: float) -> dict[str, Any]:
        if draw < 0.4:
            return {}
        info = {"draw": draw, "flag": draw > 0.6, "small": np.float32(draw), "array": np.array([draw, 1]), "none": None}
        nested = {"actions": self.actions[-1], "deeper": {"tuple": (1, "a", np.int8(3)), "set": {2, 3}}}
        return info if draw < 0.6 else {**info, "nested": nested, 7: [1, [2.5]]}

    def render(self) -> Any:
        return np.full((2, 2, 3), len(self.actions), np.uint8)

    def twice(self, value: Any, plus: int = 0) -> Any:
        return (value, value, plus)


def mixed() -> gymnasium.Env[Any, Any]:
    """Fixed and loose leaves, nested."""
    inner = spaces.Dict(
        {"image": spaces.Box(0, 255, (2, 3), np.uint8), "said": text(), "place": spaces.Discrete(5, start=-2)}
    )
    observations = spaces.Dict(
        {"inner": inner, "pair": spaces.Tuple((spaces.MultiBinary(3), text())), "x": spaces.Box(-1, 1, ())}
    )
    actions = spaces.Dict({"go": spaces.MultiDiscrete([3, 4]), "by": spaces.Box(-1, 1, (2,)), "say": text()})
    return Drawn(observations, actions)


def words() -> gymnasium.Env[Any, Any]:
    """Text there and back."""
    return Drawn(text(), text())


def loose() -> gymnasium.Env[Any, Any]:
    """Spaces of no fixed size."""
    graph = spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(3))
    some = spaces.Sequence(spaces.Box(0, 1, (2,)))
    either = spaces.OneOf((spaces.Discrete(3), text()))
    return Drawn(
        spaces.Dict({"graph": graph, "some": some, "either": either}), spaces.Tuple((spaces.Discrete(2), text()))
    )


def half() -> gymnasium.Env[Any, Any]:
    """Of a type that few machines know."""
    return Drawn(spaces.Box(-1, 1, (3,), np.float16), spaces.MultiBinary(2))


class Trouble(gymnasium.Env[Any, Any]):
    """Does what its action says, for better or worse; `at` is where it goes wrong without being told."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(8)

    def __init__(self, at: str = "") -> None:
        if at == "make":
            raise ValueError("no such level")
        self.at = at

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if (options or {}).get("at") == "reset":
            raise ValueError("no such task")
        if (options or {}).get("at") == "fork" and os.fork() == 0:
            time.sleep(0.05)
            return np.ones(2, np.float32), {}  # of a process that has no say
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, info = np.zeros(2, np.float32), {}
        match int(action):
            case 1:
                raise ValueError("the floor is lava")
            case 2:
                os.kill(os.getpid(), signal.SIGKILL)
            case 3:
                time.sleep(600)
            case 4:
                raise SystemExit(0)
            case 5:
                observation = np.zeros(3, np.float32)
            case 6:
                info = {"what": object()}
            case 7:
                observation = np.array(["a", "b"])
        return observation, 0.0, False, False, info

    def close(self) -> None:
        if self.at == "close":
            raise ValueError("cannot close")
        if self.at == "hang":
            time.sleep(600)


def uneven(sizes: str) -> gymnasium.Env[Any, Any]:
    """Not the same everywhere: the file `sizes` holds the size of the next one."""
    with open(sizes, "r+") as file:
        size = int(file.read())
        file.seek(0)
        file.write(str(size + 1))
    return Drawn(spaces.Discrete(size), spaces.Discrete(2))


class Strange(spaces.Discrete):
    """A space that nobody else knows."""


def strange() -> gymnasium.Env[Any, Any]:
    """Of that space."""
    return Drawn(Strange(3), spaces.Discrete(2))


class Echo(gymnasium.Env[Any, Any]):
    """Shows the action that reached it; the fourth ends the episode."""

    observation_space = spaces.Dict(
        place=spaces.Box(0, 9, (2,), np.int64), heard=spaces.Text(200, charset=string.printable)
    )

    def __init__(self, actions: str) -> None:
        self.action_space = ACTIONS[actions]
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._see("nothing"), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._see(repr(action)), 1.0, self.steps == 4, False, {}

    def _see(self, heard: str) -> dict[str, Any]:
        return {"place": np.array([self.steps, 9]), "heard": heard}


ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (2,)),
    "text": spaces.Text(10),
    "dict": spaces.Dict(go=spaces.MultiDiscrete([3, 2]), say=spaces.Text(5)),
    "tuple": spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
}
"""Action spaces of `Echo`."""
