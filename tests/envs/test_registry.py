import asyncio
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra import Env, EnvSpec, Reset, Step, make, register
from palaestra.envs import registry
from palaestra.envs.registry import discover, load_object, registered_ids, spec
from palaestra.envs.wrappers import OrderEnforcing, TimeLimit, Wrapper, WrapperSpec
from palaestra.errors import DataError, EnvError, MissingExtraError, UnknownNameError


class Echo(Env[str, str]):
    """Answers with what it was told."""

    def __init__(self, prefix: str = "", loud: bool = False) -> None:
        self.prefix, self.loud = prefix, loud

    async def reset(self, **kwargs: Any) -> Reset[str]:
        return Reset(self.prefix, {})

    async def step(self, action: str) -> Step[str]:
        text = self.prefix + action
        return Step(text.upper() if self.loud else text, 0.0, False, False, {})


class Shouting(Wrapper):
    """Adds a mark to what was said."""

    def __init__(self, env: Env[Any, Any], mark: str = "!", times: int = 1) -> None:
        super().__init__(env)
        self.mark = mark * times

    async def step(self, action: Any) -> Step[Any]:
        step = await self.env.step(action)
        return step._replace(observation=step.observation + self.mark)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(registry, "_MAKERS", dict(registry._MAKERS))
    discover()


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("palaestra_test_envs")
    sys.modules[made.__name__] = made
    made.Echo = Echo  # type: ignore[attr-defined]
    yield made
    del sys.modules[made.__name__]


def _said(env: Env[Any, Any], action: str = "hi") -> str:
    async def play() -> str:
        await env.reset()
        return str((await env.step(action)).observation)

    return asyncio.run(play())


def test_register_as_decorator_returns_the_class() -> None:
    decorated = register("t/Echo-v0", kwargs={"prefix": ">"})(Echo)
    assert decorated is Echo
    assert _said(make("t/Echo-v0")) == ">hi"
    assert "t/Echo-v0" in registered_ids()


def test_register_as_function_with_a_name(module: types.ModuleType) -> None:
    made = register("t/Echo-v0", "palaestra_test_envs:Echo", max_episode_steps=3)
    assert made == spec("t/Echo-v0")
    assert _said(make("t/Echo-v0", prefix="<")) == "<hi"


def test_a_name_is_imported_only_by_make() -> None:
    register("t/Late-v0", "no_such_module_anywhere:Env")
    assert "t/Late-v0" in registered_ids()
    with pytest.raises(EnvError, match="cannot load 'no_such_module_anywhere:Env'"):
        make("t/Late-v0")


def test_two_local_classes_of_one_name_stay_apart() -> None:
    def local(answer: str) -> type[Env[str, str]]:
        class Local(Echo):
            def __init__(self) -> None:
                super().__init__(prefix=answer)

        return Local

    register("t/A-v0", local("a"))
    register("t/B-v0", local("b"))
    assert (_said(make("t/A-v0")), _said(make("t/B-v0"))) == ("ahi", "bhi")


@pytest.mark.parametrize("id", ["Echo-v0", "t/Echo", "t/Echo-v", "t/Echo-v1.0", "/Echo-v0", "a/b/Echo-v0", "t/E o-v0"])
def test_an_id_is_namespace_name_version(id: str) -> None:
    with pytest.raises(EnvError, match="write namespace/Name-vN"):
        register(id, Echo)


@given(st.from_regex(r"[a-z]{1,5}/[A-Z][a-z-]{0,5}-v[0-9]{1,3}", fullmatch=True))
def test_every_well_formed_id_is_accepted(id: str) -> None:
    assert registry._ID.fullmatch(id)


def test_the_same_entry_point_again_is_fine_and_another_is_not() -> None:
    register("t/Echo-v0", Echo)
    register("t/Echo-v0", Echo, kwargs={"prefix": "2"})
    assert _said(make("t/Echo-v0")) == "2hi"
    with pytest.raises(EnvError, match=r"'t/Echo-v0' is registered already, by .*:Echo; .* override=True"):
        register("t/Echo-v0", Shouting)
    register("t/Echo-v0", "x:y", override=True)
    assert spec("t/Echo-v0").entry_point == "x:y"


def test_a_nameless_maker_is_refused() -> None:
    import functools

    with pytest.raises(EnvError, match="has no name to register"):
        register("t/Echo-v0", functools.partial(Echo, "x"))


def test_a_wrong_id_names_the_nearest() -> None:
    register("t/Echo-v0", Echo)
    with pytest.raises(UnknownNameError, match="did you mean 't/Echo-v0'"):
        make("t/Ehco-v0")
    with pytest.raises(UnknownNameError, match="did you mean 't/Echo-v0'"):
        make("t/Echo-v3")


def test_without_a_version_the_newest_is_made() -> None:
    for version in (2, 10, 9):
        register(f"t/Echo-v{version}", Echo, kwargs={"prefix": str(version)})
    env = make("t/Echo")
    assert _said(env) == "10hi"
    assert env.spec is not None
    assert env.spec.id == "t/Echo-v10"


def test_make_overrides_arguments_one_by_one() -> None:
    register("t/Echo-v0", Echo, kwargs={"prefix": "a", "loud": True})
    env = make("t/Echo-v0", prefix="b")
    assert _said(env) == "BHI"
    assert env.spec is not None
    assert env.spec.kwargs == {"prefix": "b", "loud": True}
    assert spec("t/Echo-v0").kwargs == {"prefix": "a", "loud": True}


def test_wrong_arguments_are_one_line() -> None:
    register("t/Echo-v0", Echo)
    with pytest.raises(EnvError, match=r"cannot make 't/Echo-v0': .*unexpected keyword argument 'perfix'"):
        make("t/Echo-v0", perfix="b")


def test_an_entry_point_that_makes_something_else() -> None:
    register("t/Dict-v0", dict)
    with pytest.raises(EnvError, match="made a dict, not an Env"):
        make("t/Dict-v0")


def test_a_missing_extra_is_named(module: types.ModuleType) -> None:
    def needs_more() -> None:
        raise MissingExtraError("textworld", "alfworld")

    register("t/Extra-v0", needs_more)
    with pytest.raises(MissingExtraError, match=r"palaestra\[alfworld\]"):
        make("t/Extra-v0")


def test_make_puts_the_wrappers_on_in_order() -> None:
    shouting = WrapperSpec(entry_point=f"{__name__}:Shouting", kwargs={"mark": "?"})
    sys.modules.setdefault(__name__, sys.modules[Shouting.__module__])
    register("t/Echo-v0", Echo, max_episode_steps=3, wrappers=[shouting])
    env = make("t/Echo-v0")
    assert isinstance(env, Shouting)
    assert isinstance(env.env, TimeLimit)
    assert isinstance(env.env.env, OrderEnforcing)
    assert isinstance(env.unwrapped, Echo)
    assert _said(env) == "hi?"


def test_no_limit_no_wrapper() -> None:
    register("t/Echo-v0", Echo)
    assert not isinstance(make("t/Echo-v0"), TimeLimit)
    assert isinstance(make("t/Echo-v0", max_episode_steps=2), TimeLimit)


def test_a_spec_rebuilds_the_environment_with_wrappers_put_on_later() -> None:
    register("t/Echo-v0", Echo, max_episode_steps=3)
    env = Shouting(Shouting(make("t/Echo-v0", prefix="b"), times=2), mark="?")
    again = make(EnvSpec.from_json(env.spec.to_json()))
    assert _said(again) == _said(env) == "bhi!!?"
    assert again.spec == env.spec
    assert again.spec.max_episode_steps == 3


def test_an_unmade_environment_has_no_spec() -> None:
    assert OrderEnforcing(Echo()).spec is None


def test_a_spec_that_json_cannot_hold() -> None:
    made = register("t/Echo-v0", Echo, kwargs={"prefix": object()})
    with pytest.raises(EnvError, match="argument that JSON cannot hold"):
        made.to_json()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"id": 3, "entry_point": "x:y"}'])
def test_json_that_is_no_spec(text: str) -> None:
    with pytest.raises(DataError, match="not an environment spec"):
        EnvSpec.from_json(text)


@pytest.mark.parametrize("name", ["", "json", "json:", ":x", "json:nothing", "json:decoder.nothing"])
def test_load_object_says_what_it_wants(name: str) -> None:
    with pytest.raises(EnvError, match="wanted module:attribute"):
        load_object(name)


def test_load_object_follows_dots() -> None:
    assert load_object("json:decoder.JSONDecoder") is __import__("json").decoder.JSONDecoder


def _entry_points(*points: tuple[str, str]) -> Any:
    return lambda group: [metadata.EntryPoint(name, value, group) for name, value in points]


def test_discover_loads_plugins_once_and_survives_a_broken_one(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    calls: list[str] = []

    def add() -> None:
        calls.append("add")
        register("plug/Echo-v0", Echo)

    module.add = add  # type: ignore[attr-defined]
    points = _entry_points(("good", "palaestra_test_envs:add"), ("bad", "no_such_plugin"))
    monkeypatch.setattr(metadata, "entry_points", points)
    monkeypatch.setattr(registry, "_discovered", False)
    with pytest.warns(RuntimeWarning, match=r"environments of 'bad' \(no_such_plugin\) are missing: ModuleNotFound"):
        discover()
    discover()
    assert calls == ["add"]
    assert _said(make("plug/Echo-v0")) == "hi"


def test_built_ins_are_registered_without_importing_them() -> None:
    code = (
        "import sys; from palaestra.envs.registry import registered_ids; from palaestra.envs.tasks import suite_names;"
        "assert 'alfworld/Household-v0' in registered_ids() and 'alfworld' in suite_names();"
        "print([m for m in sys.modules if 'alfworld' in m or m == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_built_in_environment_can_be_made() -> None:
    env = make("alfworld/Household-v0")
    assert "Your task is to: " in asyncio.run(env.reset(seed=1)).observation
