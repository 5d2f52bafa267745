"""Let attack agents try to be paid for nothing; exit code 1 if one is.

A software-engineering task is attacked in its sandbox by every trick of the catalogue, and its oracle has to solve it
beside them. Any other environment is played by agents that talk nonsense.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser, UsageError, positive

if TYPE_CHECKING:
    from palaestra.envs.checks.attackers import Earned
    from palaestra.envs.swe.audit.play import Finding
    from palaestra.envs.tasks import Task

EXAMPLES = """  palaestra audit swe/Repository-v0
  palaestra audit swe/Repository-v0 --task 'swe:test[3:4]' --backend docker
  palaestra audit swe/Repository-v0 --attack "read the test" --attack "a daemon"
  palaestra audit math/Answer-v0 --task math:test --episodes 20 --json"""

SWE = "swe/Repository-v0"
_SHOWN = 120


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("env", metavar="ID", help="namespace/Name-vN")
    parser.add_argument(
        "--task", metavar="SUITE", help="suite whose tasks are played, as in 'swe:test[3:4]' (default: one of its own)"
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of the suite, as path=FILE"
    )
    parser.add_argument("--backend", help="what sandboxes run on: bubblewrap, docker or remote (default: the task's)")
    parser.add_argument(
        "--attack", action="append", default=[], metavar="NAME", help="only this one; may be given again (default: all)"
    )
    parser.add_argument(
        "--episodes", type=positive, default=10, metavar="N", help="of each attacker without sandboxes (default: 10)"
    )
    parser.add_argument("--concurrency", type=positive, default=2, metavar="N", help="sandboxes at once (default: 2)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each attack")


def run(args: argparse.Namespace) -> int:
    """Attack and print."""
    from palaestra.envs.registry import spec

    id = spec(args.env).id
    findings = _sandboxed(id, args) if id == SWE else _others(id, args)
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        print(f"{len(bad)} of {len(findings)} are not as they should be", file=sys.stderr)
    return 1 if bad else 0


def _tasks(id: str, args: argparse.Namespace, most: int, default: str | None = None) -> list[Task]:
    from palaestra.cli.eval import suite_params
    from palaestra.envs.tasks import load_suite

    reference = args.task or default
    if reference is None:
        return []
    tasks = list(load_suite(reference, **suite_params(args.param))[:most])
    if not tasks or any(task.env != id for task in tasks):
        raise UsageError(f"{reference} has no task of {id}")
    return tasks


def _sandboxed(id: str, args: argparse.Namespace) -> Sequence[Finding]:
    from palaestra.envs.deadline import run_to_the_end
    from palaestra.envs.swe.audit import ATTACKS
    from palaestra.envs.swe.audit.play import audit
    from palaestra.errors import UnknownNameError

    known = {attack.name: attack for attack in ATTACKS}
    for name in args.attack:
        if name not in known:
            raise UnknownNameError("attack", name, known)
    chosen = [known[name] for name in args.attack] or list(ATTACKS)
    (task,) = _tasks(id, args, 1, "swe:train")
    with _Progress(f"{id} {task.name}", len(chosen) + 1, args.json) as done:
        found = run_to_the_end(
            audit(task, chosen, backend=args.backend, at_once=args.concurrency, on_finding=done), cancellable=True
        )
    if not args.json:
        _table(("attack", "what it tried", "score", "what grading saw"), map(_row, found))
    return found


def _others(id: str, args: argparse.Namespace) -> Sequence[Earned]:
    from palaestra.envs.checks.attackers import attack, attackers
    from palaestra.envs.deadline import run_to_the_end

    if args.attack or args.backend:
        raise UsageError(f"--attack and --backend are for {SWE}, whose attacks run in sandboxes")
    tasks = _tasks(id, args, args.episodes)
    found = []
    with _Progress(id, len(attackers()), args.json) as done:
        for name in attackers():
            found.append(run_to_the_end(attack(id, name, tasks, args.episodes), cancellable=True))
            done(found[-1])
    if not args.json:
        rows = ((_mark(one), one.attacker, f"{one.solved} of {one.episodes}", f"{one.reward:g}") for one in found)
        _table(("attacker", "solved", "mean reward"), ((f"{mark} {name}", *rest) for mark, name, *rest in rows))
    return found


class _Progress:
    """A bar, and lines of JSON."""

    def __init__(self, label: str, total: int, json: bool) -> None:
        from palaestra.cli.progress import Bars

        self.bars, self.label, self.total, self.json, self.count = Bars(), label, total, json, 0

    def __enter__(self) -> Callable[[Any], None]:
        self.move = self.bars.__enter__().add(self.label)
        return self._done

    def __exit__(self, *error: Any) -> None:
        self.bars.__exit__(*error)

    def _done(self, finding: Any) -> None:
        import msgspec

        self.count += 1
        self.move(self.count, self.total, "")
        if self.json:
            print(msgspec.json.encode({"ok": finding.ok, **msgspec.to_builtins(finding)}).decode(), flush=True)


def _row(finding: Finding) -> tuple[str, ...]:
    return f"{_mark(finding)} {finding.attack}", finding.tried, f"{finding.score:g}", finding.seen[:_SHOWN]


def _mark(finding: Any) -> str:
    return "✓" if finding.ok else "✗"


def _table(heads: Sequence[str], rows: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
