"""Remove what sandboxes took whose process is gone, or which are past their time; what is held is left alone."""

from __future__ import annotations

import argparse
import asyncio
import json

from palaestra.cli.parser import Parser
from palaestra.cli.sandboxes.things import print_things, rows, tell_unseen
from palaestra.interrupts import cancelling

EXAMPLES = """  palaestra sandboxes reap
  palaestra sandboxes reap --dry-run
  palaestra sandboxes reap 1f0c9a77-5b0e1c22a7d94f0c"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "leases",
        nargs="*",
        metavar="LEASE",
        help="as `palaestra sandboxes ps --json` names them: their things are removed too, whoever holds them",
    )
    parser.add_argument("--dry-run", action="store_true", help="remove nothing; list what would be removed")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Remove it; 1 where something could not be removed."""
    from palaestra.sandboxes.reaper import reap

    with cancelling():
        done = asyncio.run(reap(args.leases, rehearse=args.dry_run))
    if args.json:
        print(json.dumps({"removed": rows(done.removed), "kept": done.kept, "unseen": done.unseen}))
        return 1 if done.kept else 0
    tell_unseen(done.unseen)
    print_things(done.removed)
    print(f"{'would remove' if args.dry_run else 'removed'} {len(done.removed) or 'nothing'}")
    for reason in done.kept.values():
        print(f"still there: {reason}")
    return 1 if done.kept else 0
