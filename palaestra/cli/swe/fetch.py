"""Download what the software-engineering tasks made from release histories need, for machines that go offline."""

from __future__ import annotations

import argparse

from palaestra.cli.parser import Parser

EXAMPLES = """  palaestra swe fetch
  palaestra swe fetch --split test"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("--split", choices=("train", "validation", "test"), help="only what its tasks need")


def run(args: argparse.Namespace) -> int:
    """Download it."""
    from palaestra.cli.swe.downloading import download
    from palaestra.envs.swe import index
    from palaestra.envs.swe.manifest import manifest
    from palaestra.envs.swe.releases import pins

    splits = [args.split] if args.split else ["train", "validation", "test"]
    wanted = pins(manifest(), [task for split in splits for task in manifest().tasks(split)])
    fetched = download(wanted)
    print(f"{len(wanted)} files in {index.folder()}, {fetched} of them downloaded")
    return 0
