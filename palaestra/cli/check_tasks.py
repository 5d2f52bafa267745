"""Tasks of a suite, checked by `palaestra check SUITE`: a row each, and what is wrong below."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palaestra.envs.checks.tasks import Validation


def check_tasks(args: argparse.Namespace) -> int:
    """Check and print; 1 if a task is wrong.

    Raises:
        PalaestraError: there is no such suite, or it has no task.
    """
    from palaestra.cli.eval import suite_params
    from palaestra.cli.progress import Bars
    from palaestra.envs.checks.tasks import validate_all
    from palaestra.envs.deadline import run_to_the_end
    from palaestra.envs.tasks import load_suite
    from palaestra.errors import ConfigError

    tasks = list(load_suite(args.env, **suite_params(args.param))[: args.tasks])
    if not tasks:
        raise ConfigError(f"{args.env} has no task to check")
    with Bars() as bars:
        move, done = bars.add(args.env), 0

        def on_done(found: Validation) -> None:
            nonlocal done
            done += 1
            move(done, len(tasks), found.task)
            if args.json:
                print(_json(found), flush=True)

        checking = validate_all(tasks, on_done, seconds=args.check_seconds, at_once=args.concurrency)
        results = run_to_the_end(checking, cancellable=True)
    if not args.json:
        _show(results)
    wrong = [found for found in results if not found.ok]
    if wrong:
        print(f"{len(wrong)} of {len(results)} tasks are wrong", file=sys.stderr)
    return 1 if wrong else 0


def _json(found: Validation) -> str:
    import msgspec

    return msgspec.json.encode({"ok": found.ok, **msgspec.to_builtins(found)}).decode()


def _show(results: Sequence[Validation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("task", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("doing nothing", "oracle", "steps", "seconds"):
        table.add_column(name, justify="right")
    for found in results:
        mark = "✓" if found.ok else "✗"
        paid = [_number(found.noop), _number(found.oracle)]
        table.add_row(f"{mark} {found.task}", found.kind, *paid, str(found.steps), f"{found.seconds:.1f}")
    Console().print(table)
    for found in results:
        if found.wrong:
            print(f"{found.task}: {found.wrong}")


def _number(reward: float | None) -> str:
    return "–" if reward is None else f"{reward:g}"
