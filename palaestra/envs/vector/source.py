"""What makes one environment of a vector: an id of ours, an id of Gymnasium's, or something that can be imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
import msgspec

from palaestra.envs import registry
from palaestra.envs.core import Env
from palaestra.envs.gymnasium import as_gymnasium
from palaestra.envs.isolation.placement import Placement
from palaestra.errors import EnvError, UnknownNameError

_ENTRY_POINT = re.compile(r"[\w.]+:[A-Za-z_][\w.]*")


class Source(msgspec.Struct, frozen=True):
    """How to make the environment, in this process or another one."""

    kind: Literal["palaestra", "gymnasium", "callable"]
    text: str
    """A spec as JSON, or `module:attribute`."""
    kwargs: dict[str, Any]
    """Keyword arguments of what makes it."""
    name: str
    """For messages."""
    placement: Placement = Placement()
    """Of a spec of ours."""

    def make(self) -> gymnasium.Env[Any, Any]:
        """One environment.

        Raises:
            EnvError: what makes it cannot be found, or makes something else.
        """
        if self.kind == "palaestra":
            return as_gymnasium(_here(registry.EnvSpec.from_json(self.text)), **self.kwargs)
        if self.kind == "gymnasium":
            return gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(self.text), **self.kwargs)
        env = registry.load_object(self.text)(**self.kwargs)
        if isinstance(env, Env):
            return as_gymnasium(env)
        if not isinstance(env, gymnasium.Env):
            raise EnvError(f"{self.text} made a {type(env).__name__}, not an Env or a gymnasium.Env")
        return env


def source_of(env: Any, kwargs: Mapping[str, Any]) -> Source:
    """Where environments come from, told by what the caller has.

    Raises:
        UnknownNameError: no such id.
        EnvError: it cannot be made in another process.
    """
    if isinstance(env, str):
        env = _found(env)
    if isinstance(env, registry.EnvSpec):
        return Source("palaestra", env.to_json(), dict(kwargs), env.id, env.placement)
    if isinstance(env, gymnasium.envs.registration.EnvSpec):
        return Source("gymnasium", _as_json(env), dict(kwargs), env.id)
    text = env if isinstance(env, str) else _importable(env)
    return Source("callable", text, dict(kwargs), text)


def _found(name: str) -> Any:
    """The spec that `name` means, or `name` itself where it is `module:attribute`."""
    if _ENTRY_POINT.fullmatch(name):
        return name
    try:
        return registry.spec(name)
    except UnknownNameError:
        pass
    try:
        return gymnasium.spec(name)
    except gymnasium.error.UnregisteredEnv:
        raise UnknownNameError("environment", name, [*registry.registered_ids(), *gymnasium.registry]) from None
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvError(f"cannot find the environment {name!r}: {error}") from error


def _importable(maker: Callable[..., Any]) -> str:
    name = f"{getattr(maker, '__module__', None)}:{getattr(maker, '__qualname__', maker)}"
    try:
        if registry.load_object(name) is maker:
            return name
    except EnvError:
        pass
    raise EnvError(
        f"a worker process cannot find {name}; define it at the top of a module, with its arguments as kwargs"
    )


def _as_json(spec: gymnasium.envs.registration.EnvSpec) -> str:
    entry_point = spec.entry_point
    if callable(entry_point):
        entry_point = _importable(entry_point)
    made = gymnasium.envs.registration.EnvSpec(
        **{
            **{field: getattr(spec, field) for field in spec.__dataclass_fields__ if field not in _NAMES},
            "entry_point": entry_point,
        }
    )
    try:
        return made.to_json()
    except (TypeError, ValueError) as error:
        raise EnvError(f"the spec of {spec.id!r} cannot be sent to a worker process: {error}") from error


_NAMES = ("namespace", "name", "version")
"""Fields that follow from the id."""


def _here(spec: registry.EnvSpec) -> registry.EnvSpec:
    """Inside of a worker there is no need for another one."""
    if spec.placement.kind not in ("thread", "process"):
        return spec
    return msgspec.structs.replace(spec, placement=Placement())
