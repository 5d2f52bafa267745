"""The bridge to Gymnasium, both ways: `as_gymnasium` hands an environment out, `FromGymnasium` takes one in."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import string
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from palaestra.envs.core import Env, Info, Reset, Step, SupportsRender
from palaestra.envs.registry import EnvSpec, make
from palaestra.envs.tasks import Task
from palaestra.errors import EnvError, require

if TYPE_CHECKING:
    import gymnasium
    from gymnasium import spaces
else:
    gymnasium = require("gymnasium", "gymnasium")
    spaces = gymnasium.spaces

_T = TypeVar("_T")


class AnyText(spaces.Text):
    """Text of any characters and any length; samples are short and printable."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(64, charset=string.ascii_lowercase + string.digits + " ", seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a `str`."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    __hash__ = None  # type: ignore[assignment]  # like every space

    def __repr__(self) -> str:
        return "AnyText()"


def as_gymnasium(env: Env[Any, Any] | EnvSpec | str, *, render_mode: str | None = None, **kwargs: Any) -> AsGymnasium:
    """Hand out an environment, or the one that `make(env, **kwargs)` makes, as a synchronous `gymnasium.Env`.

    `render_mode` is Gymnasium's: `"ansi"`, for environments that render text. One that has a spec has one of
    Gymnasium's too.

    Raises:
        MissingExtraError: gymnasium is not installed.
    """
    if isinstance(env, Env):
        if kwargs:
            raise EnvError("as_gymnasium takes keyword arguments only with an id or a spec, which it makes with them")
        return AsGymnasium(env, render_mode)
    return AsGymnasium(make(env, **kwargs), render_mode)


class AsGymnasium(gymnasium.Env[Any, Any]):
    """A Palaestra environment as a `gymnasium.Env` of text observations and text actions.

    Chat messages are shown as JSON text. `reset(options={"task": task})` plays that task; other options are passed on.
    Without a seed, each `reset` draws one from `np_random`, so that one seeded `reset` fixes all later episodes.

    Every call runs on an event loop of the instance's own, in the calling thread, or, where that has a loop running
    already (a notebook), in a helper thread.
    """

    def __init__(self, env: Env[Any, Any], render_mode: str | None = None) -> None:
        self.env = env
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.metadata = {"render_modes": ["ansi"] if isinstance(env, SupportsRender) else [], "render_fps": 1}
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise EnvError(f"{env} has no render mode {render_mode!r}; it has {self.metadata['render_modes']}")
        self.render_mode = render_mode
        self.spec = None if env.spec is None else _gymnasium_spec(env.spec)
        self._runner = _Runner()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        options = dict(options or {})
        task = options.pop("task", None)
        first = self._runner.run(self.env.reset(seed=seed, task=task, options=options or None))
        return _as_text(first.observation), first.info

    def step(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action; see `gymnasium.Env.step`."""
        step = self._runner.run(self.env.step(action))
        return _as_text(step.observation), step.reward, step.terminated, step.truncated, step.info

    def render(self) -> Any:
        """The state as text in the mode `"ansi"`, else `None`."""
        if self.render_mode is None or not isinstance(self.env, SupportsRender):
            return None
        return self._runner.run(self.env.render())

    def close(self) -> None:
        """Close the environment; may be called more than once."""
        if not self._runner.closed:
            self._runner.run(self.env.close())
            self._runner.close()

    def __repr__(self) -> str:
        return f"AsGymnasium({self.env!r})"


def _gymnasium_spec(spec: EnvSpec) -> gymnasium.envs.registration.EnvSpec:
    """By which Gymnasium makes the environment again; order and time limit are kept by our own wrappers."""
    return gymnasium.envs.registration.EnvSpec(
        id=spec.id,
        entry_point="palaestra.envs.gymnasium:as_gymnasium",
        reward_threshold=spec.reward_threshold,
        nondeterministic=spec.nondeterministic,
        order_enforce=False,
        disable_env_checker=True,
        kwargs={"env": spec},
    )


class _Runner:
    """Runs coroutines to their end, one at a time, on one private event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread: ThreadPoolExecutor | None = None
        self.close = weakref.finalize(self, self._loop.close)  # also when nobody closes the environment

    @property
    def closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self.closed:
            work.close()
            raise EnvError("the environment is closed; make a new one")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop.run_until_complete(work)
        # One loop may not run inside another in the same thread; in another thread it may.
        self._thread = self._thread or ThreadPoolExecutor(1, "palaestra-gymnasium")
        return self._thread.submit(self._loop.run_until_complete, work).result()


def _as_text(observation: Any) -> str:
    return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False, default=str)


class FromGymnasium(Env[str, Any]):
    """A synchronous `gymnasium.Env` as a Palaestra environment of text.

    Observations are written as text: arrays as bracketed lists with every digit, dictionaries a line per key, unless
    `describe` says otherwise. Actions given as text are read by the action space: a number for `Discrete`, numbers for
    `Box`, `MultiDiscrete` and `MultiBinary`, the text itself for `Text`, JSON for the rest. Text that the space does
    not contain is answered by a hint and `info["invalid"]`, and the environment does not move. Actions that are not
    text are passed on.

    With a `Discrete` space, `info["admissible_commands"]` lists the numbers (those that `info["action_mask"]` allows,
    where there is one). `info["is_success"]` becomes `info["success"]`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], describe: Callable[[Any], str] | None = None) -> None:
        self.env = env
        self._describe = describe or describe_observation
        self._last: tuple[str, Info] | None = None  # to show again after an action that makes no sense
        if env.render_mode == "ansi":
            self.__dict__["render"] = self._render  # structural: only who draws text supports render

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin an episode. A task's seed and params are used as `seed` and `options`, which win over them."""
        if task is not None:
            seed = task.seed if seed is None else seed
            options = {**task.params, **(options or {})}
        raw, info = self.env.reset(seed=seed, options=dict(options) if options else None)
        return Reset(*self._remember(raw, info))

    async def step(self, action: Any) -> Step[str]:
        """Take one action, given as text or as the space's own value."""
        if isinstance(action, str):
            try:
                action = parse_action(self.env.action_space, action)
            except ValueError as error:
                return self._refuse(error)
        raw, reward, terminated, truncated, info = self.env.step(action)
        text, fresh = self._remember(raw, info)
        return Step(text, float(reward), bool(terminated), bool(truncated), fresh)

    async def close(self) -> None:
        """Close the environment."""
        self.env.close()

    async def _render(self) -> Any:
        return self.env.render()

    def _remember(self, raw: Any, info: Mapping[str, Any]) -> tuple[str, Info]:
        admissible = admissible_numbers(self.env.action_space, info)
        known: Info = dict(info) if admissible is None else {**info, "admissible_commands": admissible}
        if "is_success" in known:
            known["success"] = bool(known["is_success"])
        self._last = self._describe(raw), known
        return self._last[0], copy.deepcopy(known)

    def _refuse(self, error: ValueError) -> Step[str]:
        if self._last is None:
            raise EnvError("step was called before reset; call reset first")
        text, info = self._last
        return Step(f"{error}\n{text}", 0.0, False, False, {**copy.deepcopy(info), "invalid": True})

    def __repr__(self) -> str:
        return f"FromGymnasium({self.env!r})"


def admissible_numbers(space: spaces.Space[Any], info: Mapping[str, Any]) -> list[str] | None:
    """The actions of a `Discrete` space that `info["action_mask"]`, where there is one, allows; else `None`."""
    if not isinstance(space, spaces.Discrete):
        return None
    mask = info.get("action_mask", np.ones(int(space.n)))
    return [str(int(space.start) + int(i)) for i in np.flatnonzero(mask)]


def describe_observation(observation: Any) -> str:
    """An observation of any standard space as text, with every digit."""
    if isinstance(observation, np.ndarray):
        return f"[{', '.join(map(describe_observation, observation))}]" if observation.ndim else str(observation)
    if isinstance(observation, Mapping):
        return "\n".join(f"{key}: {describe_observation(value)}" for key, value in observation.items())
    if isinstance(observation, tuple):
        return "\n".join(describe_observation(value) for value in observation)
    return str(observation)


_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def parse_action(space: spaces.Space[Any], text: str) -> Any:
    """The action of `space` that `text` says; see `FromGymnasium`.

    Raises:
        ValueError: it says none; the message tells what to write, for the agent to read.
    """
    try:
        action = _decode(space, text.strip())
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RecursionError):
        action = None
    if action is None or not space.contains(action):
        raise ValueError(f"{text.strip()!r} is not an action; write {wanted_action(space)}.")
    return action


def _decode(space: spaces.Space[Any], text: str) -> Any:
    if isinstance(space, spaces.Text):
        return text
    if isinstance(space, spaces.Discrete):
        return np.int64(text)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return _decode_numbers(space, text)
    if isinstance(space, spaces.Dict):
        parts = json.loads(text)
        return {key: _decode(part, _text_of(parts[key])) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = json.loads(text)
        return tuple(_decode(part, _text_of(value)) for part, value in zip(space.spaces, parts, strict=True))
    return space.from_jsonable([json.loads(text)])[0]


def _decode_numbers(space: spaces.Space[Any], text: str) -> Any:
    rest = re.sub(r"[\[\](),;\s]", "", _NUMBER.sub("", text))
    if rest:
        raise ValueError(rest)
    words = _NUMBER.findall(text)
    if space.dtype is not None and np.issubdtype(space.dtype, np.floating):
        with np.errstate(over="ignore"):  # too large a number becomes infinite, and is then no action of the space
            return np.array([float(word) for word in words]).astype(space.dtype).reshape(space.shape or ())
    whole = [int(word) if word.lstrip("+-").isdigit() else _whole(float(word)) for word in words]
    return np.array(whole, dtype=space.dtype).reshape(space.shape or ())


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError(f"{number} is not a whole number")
    return int(number)


def describe_action(space: spaces.Space[Any], action: Any) -> str:
    """The text by which an agent takes `action`: what `parse_action` reads as it, but for white space around text."""
    value = _as_json(space, action)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_json(space: spaces.Space[Any], action: Any) -> Any:
    if isinstance(space, spaces.Text):
        return action
    if isinstance(space, spaces.Dict):
        return {key: _as_json(part, action[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [_as_json(part, value) for part, value in zip(space.spaces, action, strict=True)]
    if isinstance(space, spaces.Discrete | spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return np.asarray(action).tolist()
    return space.to_jsonable([action])[0]


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def wanted_action(space: spaces.Space[Any]) -> str:
    """What to write as an action of `space`, in words."""
    if isinstance(space, spaces.Discrete):
        return f"one number from {space.start} to {space.start + space.n - 1}"
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        size = int(np.prod(space.shape or (1,)))
        return f"{size} number{'s' * (size > 1)} that {space} contains"
    return f"JSON that {space} contains"
