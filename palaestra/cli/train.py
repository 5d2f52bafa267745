"""Train an agent by a recipe: a YAML file, the name of a shipped recipe, or a run directory."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from palaestra.cli.parser import Parser, UsageError

if TYPE_CHECKING:
    from palaestra.config import Recipe
    from palaestra.experiment import Launcher

EXAMPLES = """  palaestra train demo
  palaestra train demo algorithm.name=grpo seed=1 --out runs/grpo
  palaestra train my_recipe.yaml optimiser.lr=1e-4 rollout.group_size=16
  palaestra train quiz.yaml --import quiz.py
  palaestra train runs/grpo --resume
  torchrun --nproc-per-node 8 -m palaestra train my_recipe.yaml learner.shard=true
  palaestra train demo --launcher ray
  palaestra train demo --launcher ray --ray-address head:6379 cluster.workers.count=32"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, name of a shipped recipe, or a run directory")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="values to change, as optimiser.lr=1e-4")
    parser.add_argument("--out", metavar="DIR", help="run directory (default: the recipe's, or runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")
    parser.add_argument(
        "--launcher",
        choices=["local", "ray"],
        default="local",
        help="local: in this process (default); ray: spread over a Ray cluster, as the recipe's section cluster says",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a running cluster's head, or auto (default: Ray is started on this machine for the time of the run)",
    )
    parser.add_argument("--print", action="store_true", help="print the resolved recipe and stop")


def run(args: argparse.Namespace) -> int:
    """Print the resolved recipe, train, print the summary."""
    from palaestra.cli.recipes import find_recipe, recipe_paths
    from palaestra.config import load_recipe, to_yaml

    if args.ray_address and args.launcher != "ray":
        raise UsageError("--ray-address is for --launcher ray")
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
    if int(os.environ.get("RANK", "0")) and not args.print:  # torchrun's first rank speaks for all
        from palaestra.training.run import train

        train(recipe, resume=args.resume)
        return 0
    print(to_yaml(recipe))
    if args.print:
        return 0
    from palaestra.cli.training import run_with_bar

    return run_with_bar(recipe, resume=args.resume, launcher=_launcher(args), command=_command(args, recipe))


def _launcher(args: argparse.Namespace) -> Launcher | None:
    """What trains; `None` for this process."""
    if args.launcher == "local":
        return None
    from palaestra.errors import require
    from palaestra.experiment import require_training

    require("ray", "ray")
    require_training()
    from palaestra.distributed.launch import RayLauncher

    return RayLauncher(args.ray_address, tuple(map(_absolute, args.imports)))


def _absolute(module: str) -> str:
    return str(Path(module).resolve()) if module.endswith(".py") else module


def _command(args: argparse.Namespace, recipe: Recipe) -> str:
    """What goes on with the run after an interruption."""
    if args.launcher == "local":
        return ""
    address = f" --ray-address {shlex.quote(args.ray_address)}" if args.ray_address else ""
    return f"palaestra train {shlex.quote(str(recipe.directory))} --resume --launcher ray{address}"
