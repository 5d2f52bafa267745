"""The registry: environments by versioned id, made from specs that serialise.

An id is `namespace/Name-vN`. A new version is a new environment: results under different versions do not compare. An id
without its version means the newest one; `env.spec.id` always says which that was, and that is what runs record.
A package adds its environments by an entry point of group `palaestra.envs`, which names a module (imported) or a
function (called) that registers them.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

import msgspec

from palaestra.envs.core import Env
from palaestra.envs.isolation.placement import Kind, Placement, check_limits, foreign, placed
from palaestra.envs.progress import ProgressReward
from palaestra.envs.wrappers import OrderEnforcing, TimeLimit, WrapperSpec
from palaestra.errors import DataError, EnvError, PalaestraError, UnknownNameError

ENTRY_POINT_GROUP = "palaestra.envs"

_ID = re.compile(r"[\w.-]+/[\w.-]+?-v(?P<version>\d+)")
_MakerT = TypeVar("_MakerT", bound=Callable[..., Any])


class EnvSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to make an environment, with its wrappers: `make(spec)` builds it again, in another process too."""

    id: str
    """`namespace/Name-vN`."""
    entry_point: str
    """`module:attribute` of a class or function that makes a Palaestra `Env` or a `gymnasium.Env`."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the entry point."""
    max_episode_steps: int | None = None
    """Steps after which an episode is truncated; `None` for no limit."""
    reward_threshold: float | None = None
    """Mean episode reward at which the environment counts as solved, if its author says so."""
    nondeterministic: bool = False
    """The author knows that seed and actions do not fix an episode."""
    wrappers: tuple[WrapperSpec, ...] = ()
    """Wrappers beyond order and time limit, innermost first."""
    placement: Placement = Placement()
    """Where instances run."""

    def to_json(self) -> str:
        """This spec as JSON.

        Raises:
            EnvError: an argument is not a JSON value.
        """
        try:
            return msgspec.json.encode(self).decode()
        except TypeError as error:
            raise EnvError(f"the spec of {self.id!r} has an argument that JSON cannot hold: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> EnvSpec:
        """The spec that `to_json` wrote.

        Raises:
            DataError: `text` is not such a spec.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise DataError(f"not an environment spec: {error}") from error


_SPECS: dict[str, EnvSpec] = {}
_MAKERS: dict[str, Callable[..., Any]] = {}
"""By id, the classes and functions that were registered as objects: they need not be importable by name."""
_discovered = False


@overload
def register(
    id: str,
    entry_point: None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
    nondeterministic: bool = False,
    wrappers: Iterable[WrapperSpec] = (),
    placement: Placement | Kind = "inline",
    override: bool = False,
) -> Callable[[_MakerT], _MakerT]: ...
@overload
def register(
    id: str,
    entry_point: str | Callable[..., Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
    nondeterministic: bool = False,
    wrappers: Iterable[WrapperSpec] = (),
    placement: Placement | Kind = "inline",
    override: bool = False,
) -> EnvSpec: ...
def register(
    id: str,
    entry_point: str | Callable[..., Any] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    reward_threshold: float | None = None,
    nondeterministic: bool = False,
    wrappers: Iterable[WrapperSpec] = (),
    placement: Placement | Kind = "inline",
    override: bool = False,
) -> EnvSpec | Callable[[_MakerT], _MakerT]:
    """Register an environment under `id`, as a function or as the decorator of its class.

        @register("quiz/Capitals-v0", max_episode_steps=5)
        class Capitals(Env[str, str]): ...

        register("quiz/Capitals-v0", "quiz.envs:Capitals", max_episode_steps=5)

    Args:
        id: `namespace/Name-vN`.
        entry_point: a class, a function or `"module:attribute"` (imported when first made) of a Palaestra `Env`, or
            of a plain synchronous `gymnasium.Env`, which `make` bridges. `None` returns a decorator.
        kwargs: default keyword arguments of the entry point.
        max_episode_steps, reward_threshold, nondeterministic, wrappers: see `EnvSpec`.
        placement: where instances run, or just its kind.
        override: allow `id` to move to another entry point. Registering the same one again is always allowed.

    Returns:
        The spec, or the decorator, which returns what it decorates.

    Raises:
        EnvError: `id` is malformed, or taken by another entry point, or its placement cannot keep its own limits.
    """
    if not _ID.fullmatch(id):
        raise EnvError(f"{id!r} is not an environment id; write namespace/Name-vN, as in quiz/Capitals-v0")

    def add(maker: str | Callable[..., Any]) -> EnvSpec:
        spec = EnvSpec(
            id=id,
            entry_point=maker if isinstance(maker, str) else _name_of(maker),
            kwargs=dict(kwargs or {}),
            max_episode_steps=max_episode_steps,
            reward_threshold=reward_threshold,
            nondeterministic=nondeterministic,
            wrappers=tuple(wrappers),
            placement=_placement(placement),
        )
        _add(spec, None if isinstance(maker, str) else maker, override)
        return spec

    def decorate(maker: _MakerT) -> _MakerT:
        add(maker)
        return maker

    return decorate if entry_point is None else add(entry_point)


def _add(spec: EnvSpec, maker: Callable[..., Any] | None, override: bool) -> None:
    old = _SPECS.get(spec.id)
    if old and old.entry_point != spec.entry_point and not override:
        raise EnvError(
            f"{spec.id!r} is registered already, by {old.entry_point}; "
            f"give the new environment another version, or pass override=True"
        )
    _SPECS[spec.id] = spec
    if maker is None:
        _MAKERS.pop(spec.id, None)
    else:
        _MAKERS[spec.id] = maker


def _name_of(maker: Callable[..., Any]) -> str:
    try:
        return f"{maker.__module__}:{maker.__qualname__}"
    except AttributeError:
        raise EnvError(f"{maker!r} has no name to register; wrap it in a function") from None


def spec(id: str) -> EnvSpec:
    """The spec registered under `id`; without `-vN`, that of the newest version.

    Raises:
        UnknownNameError: nothing is registered under it; the message names the nearest ids.
    """
    discover()
    if id in _SPECS:
        return _SPECS[id]
    versions = [known for known in _SPECS if known.rpartition("-v")[0] == id]
    if not versions:
        raise UnknownNameError("environment", id, _SPECS)
    return _SPECS[max(versions, key=lambda known: int(known.rpartition("-v")[2]))]


def make(
    id: str | EnvSpec,
    *,
    max_episode_steps: int | None = None,
    placement: Placement | Kind | None = None,
    **kwargs: Any,
) -> Env[Any, Any]:
    """Make an environment: the entry point's, in `ProgressReward`, `OrderEnforcing`, `TimeLimit` and its own wrappers.

    One that is placed elsewhere is made there, wrappers included, when it starts.

    Args:
        id: a registered id, or a spec (of JSON, for example), which need not be registered here.
        max_episode_steps: instead of the spec's.
        placement: instead of the spec's, or just another kind (the spec's limits that it cannot keep fall away).
        **kwargs: override the spec's keyword arguments, one by one.

    Returns:
        The wrapped environment; its `spec` makes it again, with these arguments.

    Raises:
        UnknownNameError: no such id; the message names the nearest ids.
        EnvError: the entry point cannot be loaded, or refuses the arguments.
        MissingExtraError: it needs an extra that is not installed.
    """
    base = spec(id) if isinstance(id, str) else id
    base = msgspec.structs.replace(
        base,
        kwargs={**base.kwargs, **kwargs},
        max_episode_steps=base.max_episode_steps if max_episode_steps is None else max_episode_steps,
        placement=base.placement if placement is None else _placement(placement, base.placement),
    )
    if base.placement.kind != "inline":
        from palaestra.envs.isolation.env import IsolatedEnv

        return IsolatedEnv(base)
    env = _make_inner(base)
    # The wrappers add themselves to the spec again as they are put on, so the innermost one starts without them.
    env.spec = msgspec.structs.replace(base, wrappers=())
    env = OrderEnforcing(ProgressReward(env))
    if base.max_episode_steps is not None:
        env = TimeLimit(env, base.max_episode_steps)
    for wrapper in base.wrappers:
        env = load_object(wrapper.entry_point)(env, **wrapper.kwargs)
    return env


def _placement(where: Placement | Kind, otherwise: Placement = Placement()) -> Placement:
    if not isinstance(where, Placement):
        return placed(where, otherwise)
    check_limits(where)
    return where


def _make_inner(spec: EnvSpec) -> Env[Any, Any]:
    registered = _SPECS.get(spec.id)
    maker = _MAKERS.get(spec.id) if registered and registered.entry_point == spec.entry_point else None
    return build(maker or load_object(spec.entry_point), spec.kwargs, spec.id)


def build(maker: Callable[..., Any], kwargs: Mapping[str, Any], name: str) -> Env[Any, Any]:
    """What `maker` makes, without any wrapper; a `gymnasium.Env` is bridged. `name` is for messages.

    Raises:
        EnvError: it refuses the arguments, or makes something else.
    """
    try:
        env = maker(**kwargs)
    except TypeError as error:
        raise EnvError(f"cannot make {name!r}: {error}") from error
    if isinstance(env, Env):
        return env
    if _is_gymnasium(env):
        from palaestra.envs.gymnasium import FromGymnasium

        return FromGymnasium(env)
    raise EnvError(f"cannot make {name!r}: its entry point made a {type(env).__name__}, not an Env or a gymnasium.Env")


def _is_gymnasium(env: object) -> bool:
    """Without importing it: an instance of a gymnasium class means that gymnasium is imported."""
    gymnasium = sys.modules.get("gymnasium")
    return gymnasium is not None and isinstance(env, gymnasium.Env)


def load_object(entry_point: str) -> Any:
    """What `module:attribute` names; the attribute may be dotted.

    Raises:
        EnvError: there is no such module or attribute, or its import fails.
    """
    module, _, attribute = entry_point.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except PalaestraError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise EnvError(f"cannot load {entry_point!r} (wanted module:attribute): {error}") from error
    return found


def registered_ids() -> list[str]:
    """Every registered id, sorted."""
    discover()
    return sorted(_SPECS)


def discover() -> None:
    """Load the entry points of group `palaestra.envs`, once a process; `make` and `load_suite` call it.

    One that fails is reported by a warning that names it; the others are loaded all the same.
    """
    global _discovered
    if _discovered:
        return
    from importlib import metadata  # slow, and not needed by who only registers

    _discovered = True  # first, because a plugin may itself call `make`
    for plugin in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda plugin: plugin.name):
        try:
            loaded = plugin.load()
            if callable(loaded):
                loaded()
        except Exception as error:
            warnings.warn(
                f"the environments of {plugin.name!r} ({plugin.value}) are missing: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


register("alfworld/Household-v0", "palaestra.envs.alfworld.env:HouseholdEnv")
register(
    "alfworld/Original-v0",
    "palaestra.envs.alfworld.original:OriginalEnv",
    placement=foreign("alfworld", "alfworld==0.4.2"),
)
register("babyai/Text-v0", "palaestra.envs.babyai.env:BabyAIEnv")
# Both may run beside other threads; the interpreter of one and the Java of the other block while they think.
register("textworld/Game-v0", "palaestra.envs.textworld.env:TextWorldEnv", placement="thread")
register("textworld-express/Game-v0", "palaestra.envs.textworld_express.env:TextWorldExpressEnv", placement="thread")
register("scienceworld/Task-v0", "palaestra.envs.scienceworld.env:ScienceWorldEnv", placement="thread")
register("openenv/Remote-v0", "palaestra.envs.openenv.env:RemoteEnv")
register("countdown/Numbers-v0", "palaestra.envs.countdown.env:CountdownEnv")
register("frozenlake/Text-v0", "palaestra.envs.frozenlake.env:FrozenLakeEnv")
register("sokoban/Text-v0", "palaestra.envs.sokoban.env:SokobanEnv")
register("textarena/Game-v0", "palaestra.envs.textarena.env:TextArenaEnv")
# Its judges are processes of their own; waiting for one blocks.
register("reasoning/Gym-v0", "palaestra.envs.reasoning.env:ReasoningEnv", placement="thread")
register("search/Questions-v0", "palaestra.envs.search.env:QuestionsEnv")
register("math/Answer-v0", "palaestra.envs.math.env:AnswerEnv")
register("math/Python-v0", "palaestra.envs.math.python:PythonEnv")
register("swe/Repository-v0", "palaestra.envs.swe.env:RepositoryEnv", nondeterministic=True)
register("webshop/Text-v0", "palaestra.envs.webshop.env:WebShopEnv")
register("gem/Game-v0", "palaestra.envs.gem.env:GemEnv", placement=foreign("gem", "gem-llm==0.1.0"))
register(
    "verifiers/Environment-v0",
    "palaestra.envs.verifiers.env:VerifiersEnv",
    placement=foreign("verifiers", "verifiers==0.4.0"),
)
register("gymnasium/Text-v0", "palaestra.envs.gymnasium_text.env:GymnasiumTextEnv")
