"""The main job in one command: train on household tasks, evaluate on tasks never seen, write summary and report.

The same training with plain GRPO follows, so that the report shows both.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING

import msgspec

from palaestra.cli.parser import Parser, non_negative

if TYPE_CHECKING:
    from palaestra.config import Recipe

EXAMPLES = """  palaestra demo
  palaestra demo --seed 1 --out runs/demo-1
  palaestra demo algorithm.name=grpo --out runs/demo-grpo
  palaestra demo --quick"""

QUICK = (
    "budget.iterations=2",
    "rollout.groups=4",
    "rollout.group_size=4",
    "evaluation.every=1",
    "evaluation.episodes=8",
    "evaluation.test_episodes=16",
)
"""Everything once, in seconds: to see that it works."""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="values of the recipe to change")
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="run directory (default: runs/demo)")
    parser.add_argument("--seed", type=non_negative, default=0, help="everything random derives from it (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run directory")
    parser.add_argument("--no-baseline", action="store_true", help="do not train GRPO beside it")
    parser.add_argument("--quick", action="store_true", help="two tiny iterations, to see that everything works")


def run(args: argparse.Namespace) -> int:
    """Run the recipe `demo`; an earlier run in the directory is set aside."""
    from palaestra.cli.recipes import find_recipe
    from palaestra.cli.training import run_with_bar
    from palaestra.config import load_recipe
    from palaestra.experiment import check_experiment, set_aside

    overrides = [f"out={json.dumps(args.out)}", f"seed={args.seed}", *(QUICK if args.quick else ()), *args.overrides]
    recipe = load_recipe(find_recipe("demo"), overrides)
    check_experiment(recipe)
    if not args.resume and (aside := set_aside(recipe.directory)):
        print(f"the earlier run is now {aside}", file=sys.stderr)
    baseline = None if args.no_baseline else _baseline(recipe)
    return run_with_bar(recipe, baseline=baseline, resume=args.resume, command=_resuming(args))


def _resuming(args: argparse.Namespace) -> str:
    """The command that goes on with this one after an interruption."""
    words = ["palaestra", "demo", *args.overrides, "--out", args.out]
    words += ["--seed", str(args.seed)] if args.seed else []
    words += [name for name, given in (("--quick", args.quick), ("--no-baseline", args.no_baseline)) if given]
    return shlex.join([*words, "--resume"])


def _baseline(recipe: Recipe) -> Recipe | None:
    """The same experiment with plain GRPO, in a folder of its own; `None` where it is that already."""
    if recipe.algorithm.name == "grpo":
        return None
    algorithm = msgspec.structs.replace(recipe.algorithm, name="grpo")
    return msgspec.structs.replace(recipe, algorithm=algorithm, out=str(recipe.directory / "baseline"))
