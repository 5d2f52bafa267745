"""Check an environment against the contract and grade its determinism; exit code 1 if a check fails."""

from __future__ import annotations

import argparse

from palaestra.cli.parser import Parser, positive

EXAMPLES = """  palaestra check alfworld/Household-v0
  palaestra check quiz/Capitals-v0 --import quiz.py
  palaestra check quiz/Capitals-v0 --episodes 20 --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("env", metavar="ID", help="namespace/Name-vN")
    parser.add_argument("--episodes", type=positive, default=3, metavar="N", help="episodes to play (default: 3)")
    parser.add_argument("--max-steps", type=positive, default=50, metavar="N", help="of one episode (default: 50)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    from palaestra.envs.checker import check_env

    report = check_env(args.env, seeds=range(args.episodes), max_steps=args.max_steps)
    print(report.to_json() if args.json else report)
    return 0 if report.ok else 1
