"""Train an agent by a recipe: a YAML file, the name of a shipped recipe, or a run directory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from palaestra.cli.parser import Parser, UsageError

EXAMPLES = """  palaestra train demo
  palaestra train demo algorithm.name=grpo seed=1 --out runs/grpo
  palaestra train my_recipe.yaml optimiser.lr=1e-4 rollout.group_size=16
  palaestra train quiz.yaml --import quiz.py
  palaestra train runs/grpo --resume"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, name of a shipped recipe, or a run directory")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="values to change, as optimiser.lr=1e-4")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: the recipe's, or runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")
    parser.add_argument("--print", action="store_true", help="print the resolved recipe and stop")


def run(args: argparse.Namespace) -> int:
    """Print the resolved recipe, train, print the summary."""
    from palaestra.cli.recipes import find_recipe, recipe_paths
    from palaestra.config import load_recipe, to_yaml

    overrides = list(args.overrides)
    path = Path(args.recipe)
    if (path / "recipe.yaml").is_file():
        overrides.insert(0, f"out={json.dumps(str(path))}")
        path = path / "recipe.yaml"
    elif path.is_dir() and args.recipe not in recipe_paths():
        raise UsageError(f"{path} is no run directory: it has no recipe.yaml")
    else:
        path = find_recipe(args.recipe)
    if args.out is not None:
        overrides.append(f"out={json.dumps(args.out)}")
    recipe = load_recipe(path, overrides)
    print(to_yaml(recipe))
    if args.print:
        return 0
    from palaestra.cli.training import run_with_bar

    return run_with_bar(recipe, resume=args.resume)
