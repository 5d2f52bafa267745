"""List what sandboxes take on this machine: containers, volumes, folders; who holds it, and what is left over."""

from __future__ import annotations

import argparse
import asyncio
import json

from palaestra.cli.parser import Parser
from palaestra.cli.sandboxes.things import print_things, rows, tell_unseen
from palaestra.interrupts import cancelling

EXAMPLES = """  palaestra sandboxes ps
  palaestra sandboxes ps --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List it."""
    from palaestra.sandboxes.reaper import survey

    with cancelling():
        found = asyncio.run(survey())
    if args.json:
        print(json.dumps({"things": rows(found.things), "unseen": found.unseen}))
        return 0
    tell_unseen(found.unseen)
    print_things(found.things)
    left = sum(thing.state in ("dead", "expired") for thing in found.things)
    if left:
        print(f"{left} left over: palaestra sandboxes reap removes {'them' if left > 1 else 'it'}")
    elif not found.things:
        print("no sandboxes")
    return 0
