"""Wrappers: environments around environments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import msgspec

from palaestra.envs.core import Env, Reset, Step, SupportsSnapshot
from palaestra.envs.history import History, fresh_seed
from palaestra.errors import EnvError

if TYPE_CHECKING:
    from palaestra.envs.registry import EnvSpec
    from palaestra.envs.tasks import Task

_FORWARDED = ("oracle", "verify", "tools", "render")


class WrapperSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to put a wrapper on."""

    entry_point: str
    """`module:attribute` of the wrapper class."""
    kwargs: dict[str, Any] = {}
    """Its arguments after the environment, by name."""


class Wrapper(Env[Any, Any]):
    """An environment around another; a subclass overrides what it changes.

    It has `snapshot`/`restore`, `oracle`, `verify`, `tools` and `render` exactly if the environment inside has them (or
    the subclass defines them), and forwards every other public attribute. A wrapper with state of its own overrides
    `get_state` and `set_state`, so that a snapshot holds it.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers the arguments, so that `spec` can put the wrapper on again."""
        wrapper = super().__new__(cls)
        if args or kwargs:  # copies and pickles come without: their attributes are put back
            bound = _signature(cls.__init__).bind(wrapper, *args, **kwargs)
            wrapper._arguments = dict(list(bound.arguments.items())[2:])
        return wrapper

    _arguments: dict[str, Any]

    def __init__(self, env: Env[Any, Any]) -> None:
        self.env = env
        # As attributes of the instance, because a structural check does not look at what __getattr__ would answer.
        for name in _FORWARDED:
            if hasattr(env, name) and not hasattr(type(self), name):
                setattr(self, name, getattr(env, name))
        if isinstance(env, SupportsSnapshot):
            self.__dict__.update(snapshot=self._snapshot, restore=self._restore)

    async def start(self) -> None:
        """Get the environment inside ready."""
        await self.env.start()

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[Any]:
        """Begin an episode of the environment inside."""
        return await self.env.reset(seed=seed, task=task, options=options)

    async def step(self, action: Any) -> Step[Any]:
        """Take one action in the environment inside."""
        return await self.env.step(action)

    async def close(self) -> None:
        """Close the environment inside."""
        await self.env.close()

    async def fork(self, n: int = 1) -> list[Env[Any, Any]]:
        """Continuations of the episode, made by the environment inside where its class says how; see `Env.fork`."""
        if not forks_itself(self.unwrapped):
            return await super().fork(n)
        return [self._around(sibling) for sibling in await self.env.fork(n)]

    def _around(self, env: Env[Any, Any]) -> Env[Any, Any]:
        """A wrapper like this one around another environment, in the same state."""
        wrapper = type(self)(env, **self._arguments)
        wrapper.set_state(self.get_state())
        return wrapper

    def get_state(self) -> Any:
        """The wrapper's own state of the episode, immutable; `None` where it has none."""
        return None

    def set_state(self, state: Any) -> None:
        """Put back what `get_state` returned."""

    @property
    def unwrapped(self) -> Env[Any, Any]:
        """The innermost environment, below all wrappers."""
        return self.env.unwrapped

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # derived, where the innermost one's is given
        """The spec that makes the environment with this wrapper; `None` if it was not made by `make`."""
        inner = self.env.spec
        return None if inner is None else self._add_to(inner)

    def _add_to(self, spec: EnvSpec) -> EnvSpec:
        this = WrapperSpec(entry_point=f"{type(self).__module__}:{type(self).__qualname__}", kwargs=self._arguments)
        return msgspec.structs.replace(spec, wrappers=(*spec.wrappers, this))

    async def _snapshot(self) -> Any:
        return await self.env.snapshot(), self.get_state()  # type: ignore[attr-defined]  # offered only if inside

    async def _restore(self, state: Any) -> None:
        inner, own = state
        await self.env.restore(inner)  # type: ignore[attr-defined]
        self.set_state(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "env":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.env, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"


@cache
def _signature(init: Callable[..., None]) -> inspect.Signature:
    """Asked for once a class: wrappers are put on for every episode, and the rest of that takes less time."""
    return inspect.signature(init)


def forks_itself(env: Env[Any, Any]) -> bool:
    """Whether its class says how to fork it, rather than offering snapshots or nothing."""
    return type(env).fork is not Env.fork


class OrderEnforcing(Wrapper):
    """Refuses `step` before `reset` and after the end of the episode, and results that are no `Reset` or `Step`.

    It keeps the record of the episode that forks and replays rest on.
    """

    def __init__(self, env: Env[Any, Any]) -> None:
        super().__init__(env)
        self._refusal: str | None = "before reset"
        self.history: History | None = None
        """The episode so far; `None` before `reset`."""

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[Any]:
        """Begin an episode.

        Raises:
            EnvError: the environment returned no `Reset`.
        """
        self._refusal = "before reset"  # stays, should the reset fail
        seed = fresh_seed(task) if seed is None else seed
        first = await self.env.reset(seed=seed, task=task, options=options)
        if not isinstance(first, Reset):
            raise EnvError(f"reset returned a {type(first).__name__}; return Reset(observation, info)")
        self._refusal, self.history = None, History(seed, task, options, first)
        return first

    async def step(self, action: Any) -> Step[Any]:
        """Take one action.

        Raises:
            EnvError: before `reset`, when the episode is over, or if the environment returned no `Step`.
        """
        if self._refusal:
            raise EnvError(f"step was called {self._refusal}; call reset first")
        step = await self.env.step(action)
        if not isinstance(step, Step):
            made = type(step).__name__
            raise EnvError(f"step returned a {made}; return Step(observation, reward, terminated, truncated, info)")
        if self.history is not None:
            self.history.turns.append((action, step))
        if step.terminated or step.truncated:
            self._refusal = "after the end of the episode"
        return step

    def get_state(self) -> tuple[str | None, History | None]:
        """Why a step would be refused, if it would, and the episode so far."""
        return self._refusal, self.history and self.history.copy()

    def set_state(self, state: tuple[str | None, History | None]) -> None:
        """Put back what `get_state` returned."""
        self._refusal = state[0]
        self.history = state[1] and state[1].copy()

    def _add_to(self, spec: EnvSpec) -> EnvSpec:
        return spec  # `make` puts it on always


class TimeLimit(Wrapper):
    """Truncates episodes after `max_episode_steps` steps."""

    def __init__(self, env: Env[Any, Any], max_episode_steps: int) -> None:
        if max_episode_steps < 1:
            raise EnvError(f"max_episode_steps is {max_episode_steps}; it must be at least 1")
        super().__init__(env)
        self.max_episode_steps = max_episode_steps
        self._steps = 0

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[Any]:
        """Begin an episode and count from 0."""
        first = await self.env.reset(seed=seed, task=task, options=options)
        self._steps = 0
        return first

    async def step(self, action: Any) -> Step[Any]:
        """Take one action; the last one that the limit allows is `truncated`.

        Raises:
            EnvError: the limit was reached before.
        """
        if self._steps >= self.max_episode_steps:
            raise EnvError("step was called after the end of the episode; call reset first")
        step = await self.env.step(action)
        self._steps += 1
        return step._replace(truncated=True) if self._steps == self.max_episode_steps else step

    def get_state(self) -> int:
        """Steps taken so far."""
        return self._steps

    def set_state(self, state: int) -> None:
        """Put back what `get_state` returned."""
        self._steps = state

    def _add_to(self, spec: EnvSpec) -> EnvSpec:
        return msgspec.structs.replace(spec, max_episode_steps=self.max_episode_steps)
