"""Make the manifest of software-engineering tasks from release histories: which hunks and releases tests can judge."""

from __future__ import annotations

import argparse

from palaestra.cli.parser import Parser, positive

EXAMPLES = """  palaestra swe build --out releases.json
  palaestra swe build --package parse --out releases.json
  palaestra swe build --per-pair 10 --tries 100 --out many.json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("--out", required=True, metavar="FILE", help="where to write it; packages made before are kept")
    parser.add_argument("--package", action="append", default=[], help="make only the tasks of this one; repeatable")
    parser.add_argument("--backend", default="bubblewrap", help="of the sandboxes (default: bubblewrap)")
    parser.add_argument("--per-pair", type=positive, default=3, help="hunk tasks of two neighbouring releases, at most")
    parser.add_argument(
        "--tries", type=positive, help="hunks of two releases that are tried, at most; else as packages.py says"
    )


def run(args: argparse.Namespace) -> int:
    """Make it, package by package; what is done is written after each."""
    from pathlib import Path

    from palaestra.envs.swe import making
    from palaestra.envs.swe import manifest as manifests
    from palaestra.envs.swe.packages import PACKAGES
    from palaestra.envs.swe.running import Sandboxes
    from palaestra.errors import UnknownNameError
    from palaestra.files import replace_text

    sources = {source.project: source for source in PACKAGES}
    for name in args.package:
        if name not in sources:
            raise UnknownNameError("package", name, sources)
    path = Path(args.out)
    choice = making.Choice(per_pair=args.per_pair, tries=args.tries)
    manifest = making.empty()
    if path.exists():
        manifest = making.joined(manifest, manifests.read(path).packages)
    with Sandboxes(args.backend) as sandboxes:
        for name in args.package or sources:
            made = making.make_package(sources[name], manifest, choice, sandboxes, lambda line: print(line, flush=True))
            manifest = making.joined(manifest, (made,))
            replace_text(path, manifests.written(manifest))
    count = sum(len(package.tasks) for package in manifest.packages)
    print(f"{count} tasks of {len(manifest.packages)} packages in {path}; palaestra swe verify --manifest {path}")
    return 0
