import ast
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaestra.config import AlgorithmConfig, convert, load_recipe, parse_recipe, to_dict, to_yaml
from palaestra.errors import ConfigError

BASE = 'name: x\nseed: 1\ntasks: {train: "a:train"}\n'
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def test_overrides_win_over_the_recipe_and_are_yaml() -> None:
    overrides = [
        "optimiser.lr=1e-4",
        "optimiser.betas=[0.8, 0.9]",
        "algorithm.settings.epo.entropy_coeff=0.01",
        "seed=7",
        "agent.system=You are: terse",
        "algorithm.drop_uniform_groups=null",
    ]
    recipe = parse_recipe(BASE, [o for o in overrides if "terse" not in o])
    assert recipe.optimiser.lr == 1e-4
    assert recipe.optimiser.betas == (0.8, 0.9)
    assert recipe.algorithm.settings == {"epo": {"entropy_coeff": 0.01}}
    assert recipe.seed == 7
    assert parse_recipe(BASE, ["agent.system='You are: terse'"]).agent.system == "You are: terse"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lrr=1", "unknown key 'optimiser.lrr'; did you mean 'lr'"),
        ("optimizer.lr=1", "unknown key 'optimizer'; did you mean 'optimiser'?"),
        ("rollout.zzz=1", "unknown key 'rollout.zzz'; known: groups, group_size"),
        ("optimiser.lr=fast", "optimiser.lr: expected `float`, got `str`"),
        ("optimiser.lr=-1", "optimiser.lr: expected `float` > 0.0"),
        ("optimiser.lr=.inf", "optimiser.lr: expected a finite `float`"),
        ("optimiser.lr=.nan", "optimiser.lr: expected `float` > 0.0"),
        ("agent.temperature=.inf", "agent.temperature: expected a finite `float`"),
        ("algorithm.clip_low=.nan", "algorithm.clip_low: expected `float`"),
        ("optimiser.betas=[0.9, 1.0]", "optimiser.betas[1]: expected `float` < 1.0"),
        ("rollout.groups=0", "rollout.groups: expected `int` >= 1"),
        ("budget.iterations=1.5", "budget.iterations: expected `int`, got `float`"),
        ("agent.action=tool", "agent.action: invalid enum value 'tool'"),
        ("tasks=1", "tasks: expected `object`, got `int`"),
        ("optimiser.betas=[0.9]", "optimiser.betas: expected `array` of length 2"),
        ("seed", "override 'seed' is not KEY.SUB=VALUE"),
        ("=1", "is not KEY.SUB=VALUE"),
        ("seed.x=1", "seed is a value, not a section"),
        ("seed=[1", "override 'seed=[1' is not YAML"),
    ],
)
def test_bad_overrides_are_refused_with_their_path(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_recipe(BASE, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "name: x: y", "just words"])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_recipe(text)


def test_a_recipe_needs_a_name_and_tasks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing required field `tasks`"):
        parse_recipe("name: x")
    with pytest.raises(ConfigError, match=r"cannot read recipe .*: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_the_resolved_recipe_reads_back_equal() -> None:
    recipe = parse_recipe(BASE, ["optimiser.lr=3e-5", "budget.max_seconds=12"])
    text = to_yaml(recipe)
    assert parse_recipe(text) == recipe
    assert "group_size: 8" in text
    assert to_dict(recipe)["learner"]["epochs"] == 1


@given(st.floats(min_value=1e-12, max_value=1e3, allow_nan=False), st.integers(1, 10**9))
def test_numbers_survive_the_round_trip(lr: float, iterations: int) -> None:
    recipe = parse_recipe(BASE, [f"optimiser.lr={lr!r}", f"budget.iterations={iterations}"])
    assert recipe.optimiser.lr == lr
    assert parse_recipe(to_yaml(recipe)) == recipe


def test_the_directory_is_that_of_the_name_unless_given() -> None:
    assert parse_recipe(BASE).directory == Path("runs/x")
    assert parse_recipe(BASE, ["out=/tmp/y"]).directory == Path("/tmp/y")


def test_every_field_is_documented() -> None:
    tree = ast.parse((Path(__file__).parents[1] / "palaestra" / "config.py").read_text())
    for struct in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, after in itertools.pairwise(struct.body):
            if isinstance(field, ast.AnnAssign):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{struct.name}.{ast.unparse(field.target)} has no docstring"


def test_messages_of_nested_settings_have_their_full_path() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'a\.b\.nam'; did you mean 'name'"):
        convert({"nam": 1}, AlgorithmConfig, path="a.b")
    with pytest.raises(ConfigError, match=r"a\.b\.name: expected `str`"):
        convert({"name": 1}, AlgorithmConfig, path="a.b")


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem
