"""Check an environment against the contract and grade its determinism, or tasks of a suite; exit code 1 if one fails.

Every environment is checked in a process of its own: one that crashes, hangs or takes all memory fails a check. Of a
suite, tasks are checked: the known solution has to solve each of them, and doing nothing none.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from palaestra.cli.parser import Parser, UsageError, positive, seconds
from palaestra.envs.isolation.placement import Kind
from palaestra.interrupts import cancelling

if TYPE_CHECKING:
    from rich.table import Table

    from palaestra.envs.checks.report import Check, Report
    from palaestra.envs.registry import EnvSpec

EXAMPLES = """  palaestra check alfworld/Household-v0
  palaestra check quiz/Capitals-v0 --import quiz.py
  palaestra check quiz/Capitals-v0 --import quiz.py --placement process
  palaestra check quiz/Capitals-v0 --episodes 20 --json
  palaestra check --all
  palaestra check swe/releases:test --tasks 5"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument(
        "env",
        metavar="ID",
        nargs="?",
        help="namespace/Name-vN, or a suite, NAME[/LEVEL]:SPLIT, whose tasks are checked",
    )
    parser.add_argument("--all", action="store_true", help="every registered environment, with a summary")
    parser.add_argument("--episodes", type=positive, default=3, metavar="N", help="episodes to play (default: 3)")
    parser.add_argument("--max-steps", type=positive, default=50, metavar="N", help="of one episode (default: 50)")
    parser.add_argument("--placement", choices=get_args(Kind), help="where instances run, instead of as registered")
    parser.add_argument(
        "--call-seconds", type=seconds, default=60.0, metavar="S", help="most of one call of it (default: 60)"
    )
    parser.add_argument(
        "--check-seconds", type=seconds, default=600.0, metavar="S", help="most of one check (default: 600)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, with --all one line each")
    parser.add_argument("--tasks", type=positive, default=20, metavar="N", help="of a suite, the first N (default: 20)")
    parser.add_argument("--concurrency", type=positive, default=1, metavar="N", help="tasks at once (default: 1)")
    parser.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of the suite")


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    if bool(args.env) == args.all:
        raise UsageError("give the id of an environment, or --all")
    if args.env and ":" in args.env:
        from palaestra.cli.check_tasks import check_tasks

        return check_tasks(args)
    from palaestra.envs.registry import registered_ids, spec

    specs = [spec(id) for id in (registered_ids() if args.all else [args.env])]
    reports = _check(specs, args)
    if args.all:
        return _summary(reports, args.json)
    print(reports[0].to_json() if args.json else reports[0])
    return 0 if reports[0].ok else 1


def _check(specs: Sequence[EnvSpec], args: argparse.Namespace) -> list[Report]:
    from palaestra.cli.progress import Bars

    reports = []
    with Bars() as bars:
        for spec in specs:
            reports.append(report := _check_one(spec, args, _show(bars.add(spec.id))))
            if args.json and args.all:
                print(report.to_json(), flush=True)
    return reports


def _check_one(spec: EnvSpec, args: argparse.Namespace, progress: Callable[[str, Check | None], None]) -> Report:
    import msgspec

    from palaestra.envs.checks.report import Report
    from palaestra.envs.checks.supervisor import build_interpreter, supervised, unbuilt
    from palaestra.envs.deadline import Limits

    where = args.placement or spec.placement.kind
    spec = msgspec.structs.replace(spec, placement=msgspec.structs.replace(spec.placement, kind=where))
    if unbuilt(spec):
        if args.all:
            missing = f"an interpreter of its own; to build it: palaestra check {spec.id}"
            return Report(env=spec.id, placement=where, missing=missing)
        with cancelling():
            asyncio.run(build_interpreter(spec))
    return supervised(
        spec,
        modules=[Path(name).stem if name.endswith(".py") else name for name in args.imports],
        episodes=args.episodes,
        max_steps=args.max_steps,
        limits=Limits(call=args.call_seconds, check=args.check_seconds),
        progress=progress,
    )


def _show(move: Callable[[float, float | None, str], None]) -> Callable[[str, Check | None], None]:
    """Moves a bar by one for every check that is done, and names the one that runs."""
    from palaestra.envs.checks import CHECKS

    done = 0

    def progress(name: str, check: Check | None) -> None:
        nonlocal done
        done += check is not None
        move(done, len(CHECKS), name)

    return progress


def _summary(reports: Sequence[Report], as_json: bool) -> int:
    """A row for each, then what failed or deserves a look."""
    if not as_json:
        from rich.console import Console

        Console().print(_table(reports))
        for report in reports:
            for line in _remarks(report):
                print(f"{report.env}  {line}")
    failed = [report for report in reports if not report.ok and not report.missing]
    if failed:
        print(f"{len(failed)} of {len(reports)} environments break the contract", file=sys.stderr)
    return 1 if failed else 0


def _remarks(report: Report) -> list[str]:
    """What somebody should read, a line each."""
    if report.missing:
        return [f"– skipped: it needs {report.missing}"]
    return [f"{check}: {check.reason}" for check in (*report.failures, *report.warnings)]


def _table(reports: Sequence[Report]) -> Table:
    from rich.table import Table

    from palaestra.envs.checks.report import MARKS

    table = Table(box=None, pad_edge=False)
    table.add_column("environment", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for mark in MARKS.values():
        table.add_column(mark, justify="right")
    table.add_column("determinism")
    table.add_column("random agent", justify="right")
    for report in reports:
        if report.missing:
            table.add_row(report.env, "skipped")
            continue
        counts = [str(len(report.having(outcome))) for outcome in MARKS]
        chance = [f"{100 * b.success:.0f} %" for b in report.baselines if b.agent == "random"] or [""]
        table.add_row(report.env, "ok" if report.ok else "broken", *counts, report.determinism or "unknown", *chance)
    return table
