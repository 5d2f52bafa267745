"""Run the tests of software-engineering tasks untouched and with the gold patch: only the second may solve them."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from palaestra.cli.parser import Parser, positive

if TYPE_CHECKING:
    from palaestra.envs.swe.verifying import Verification

EXAMPLES = """  palaestra swe verify
  palaestra swe verify --package parse --runs 3
  palaestra swe verify sqlparse-0.5.0-0.5.1 --json"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="names of tasks; all of them where none is given")
    parser.add_argument("--package", action="append", default=[], help="only the tasks of this package; repeatable")
    parser.add_argument("--manifest", metavar="FILE", help="another manifest than the one that is shipped")
    parser.add_argument("--runs", type=positive, default=1, help="how often each is run (default: 1)")
    parser.add_argument("--backend", default="bubblewrap", help="of the sandboxes (default: bubblewrap)")
    parser.add_argument("--image", default="", help="of the sandboxes, with python3, git and sh; docker needs one")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each task")


def run(args: argparse.Namespace) -> int:
    """Verify them; 1 where a task is not what its manifest says."""
    from pathlib import Path

    from msgspec import structs

    from palaestra.cli.swe.downloading import download
    from palaestra.envs.swe import manifest as manifests
    from palaestra.envs.swe.releases import instance, pins
    from palaestra.envs.swe.running import Sandboxes
    from palaestra.envs.swe.verifying import verify
    from palaestra.errors import UnknownNameError
    from palaestra.files import cache_root

    manifest = manifests.read(Path(args.manifest)) if args.manifest else manifests.manifest()
    chosen = [manifest.find(name) for name in args.tasks]
    chosen = chosen or [(package, task) for package in manifest.packages for task in package.tasks]
    for name in args.package:
        if name not in (known := [package.project for package in manifest.packages]):
            raise UnknownNameError("package", name, known)
    chosen = [(package, task) for package, task in chosen if not args.package or package.project in args.package]
    download(pins(manifest, chosen))
    began, good = time.monotonic(), 0
    with Sandboxes(args.backend) as sandboxes:
        for number, (package, task) in enumerate(chosen):
            made = structs.replace(instance(manifest, package, task, cache_root()), image=args.image)
            found = verify(made, sandboxes, args.runs)
            good += found.ok
            _print(found, args.json, number)
    if not args.json:
        print(f"{good} of {len(chosen)} tasks are good, in {time.monotonic() - began:.0f} s")
    return 0 if good == len(chosen) else 1


def _print(found: Verification, as_json: bool, number: int) -> None:
    if as_json:
        import msgspec

        print(json.dumps({"ok": found.ok, **msgspec.to_builtins(found)}), flush=True)
        return
    if not number:
        print(f"{'task':44} {'to pass':>7} {'to keep':>7} {'no-op':>6} {'oracle':>6} {'s':>6}")
    print(
        f"{found.name:44} {found.fail_to_pass:7} {found.pass_to_pass:7} {found.noop:6} {found.oracle:6} "
        f"{found.seconds:6.1f}  {'; '.join(found.wrong) or 'good'}",
        flush=True,
    )
