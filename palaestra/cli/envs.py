"""List the environments, task suites, models and recipes at hand."""

from __future__ import annotations

import argparse
import json

from palaestra.cli.parser import Parser

EXAMPLES = """  palaestra envs
  palaestra envs --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List them."""
    from palaestra.agents.models import SHIPPED
    from palaestra.cli.recipes import recipe_paths
    from palaestra.envs.registry import registered_ids
    from palaestra.envs.tasks import suite_names

    lists = {
        "environments": registered_ids(),
        "suites": suite_names(),
        "models": sorted(SHIPPED),
        "recipes": list(recipe_paths()),
    }
    if args.json:
        print(json.dumps(lists))
        return 0
    for title, names in lists.items():
        print(title)
        for name in names:
            print(f"  {name}")
    return 0
