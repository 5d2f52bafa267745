"""List the algorithms and the plug-ins that they are made of: source, requirements, defaults."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser

if TYPE_CHECKING:
    from palaestra.training.catalogue import Listing

EXAMPLES = """  palaestra algorithms
  palaestra algorithms empg
  palaestra algorithms gauss_rank --import gauss_rank.py
  palaestra algorithms --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", nargs="?", help="an algorithm or plug-in; default, all of them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.accept_imports()


def run(args: argparse.Namespace) -> int:
    """List them."""
    from palaestra.config import to_dict
    from palaestra.errors import UnknownNameError
    from palaestra.training.catalogue import catalogue

    known = catalogue()
    chosen = [listing for listing in known if args.name in (None, listing.name)]
    if not chosen:
        raise UnknownNameError("algorithm or plug-in", args.name, {listing.name for listing in known})
    if args.json:
        print(json.dumps([_finite(to_dict(listing)) for listing in chosen]))
        return 0
    seam = ""
    for listing in chosen:
        if listing.seam != seam:
            seam = listing.seam
            print(seam)
        print("\n".join(f"    {line}" if i else f"  {line}" for i, line in enumerate(_lines(listing))))
    return 0


def _lines(listing: Listing) -> list[str]:
    """A listing for people."""
    fills = f" ({', '.join(listing.fills)})" if listing.fills else ""
    lines = [f"{listing.name}{fills}: {listing.summary}", f"{listing.source}; {listing.use}"]
    if listing.requires:
        lines.append(f"requires {', '.join(listing.requires)}")
    if listing.defaults:
        lines.append(" ".join(f"{key}={plain(value)}" for key, value in listing.defaults.items()))
    return lines


def plain(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(plain, value))}]"
    if isinstance(value, float):
        return ".inf" if value == float("inf") else f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _finite(value: Any) -> Any:
    """JSON has no infinity; YAML's word for it stands in."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return ".inf" if value == float("inf") else value
