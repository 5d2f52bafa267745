"""Write the HTML report of a run: one file with its curves, entropies and episodes, token by token."""

from __future__ import annotations

import argparse
from pathlib import Path

from palaestra.cli.parser import Parser, UsageError

EXAMPLES = """  palaestra report runs/demo
  palaestra report runs/epo --compare GRPO=runs/grpo --out epo.html"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="run directory")
    parser.add_argument("--out", type=Path, metavar="FILE", help="HTML file to write (default: RUN/report.html)")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="LABEL=RUN",
        help="show another run's, or an evaluation JSON's, result beside it",
    )


def run(args: argparse.Namespace) -> int:
    """Write it and print its path."""
    from palaestra.trajectories.report import write_report

    others = {}
    for pair in args.compare:
        label, equals, path = pair.partition("=")
        if not (equals and label and path):
            raise UsageError(f"--compare {pair!r} is not LABEL=RUN")
        others[label] = path
    print(write_report(args.run, out=args.out, compare=others))
    return 0
