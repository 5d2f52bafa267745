"""Play a run's stored episodes again: identical, or the first step that differs.

Exit code 1 if an episode went another way, or if none could be replayed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from palaestra.cli.parser import Parser, positive, seconds
from palaestra.envs.isolation.placement import Kind
from palaestra.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from palaestra.envs.core import Env
    from palaestra.trajectories.record import Trajectory
    from palaestra.trajectories.replay import Replay

EXAMPLES = """  palaestra replay runs/demo
  palaestra replay runs/demo --store train --only failed --limit 200
  palaestra replay runs/demo --episode 12/3/0
  palaestra replay runs/quiz/trajectories/train.ptj --import quiz.py --json"""

ONLY: dict[str, Callable[[Trajectory], bool]] = {
    "solved": lambda trajectory: trajectory.success,
    "failed": lambda trajectory: not trajectory.success and trajectory.status in ("ok", "overflow"),
    "cut-off": lambda trajectory: trajectory.status not in ("ok", "overflow"),
}
_SHOWN = 3
"""Differences that are shown with their diff; the others get one line."""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument("run", metavar="RUN", type=Path, help="run directory, or a .ptj file")
    parser.add_argument(
        "--store",
        action="append",
        metavar="NAME",
        help="of its trajectory files, as train or eval-final (default: all)",
    )
    parser.add_argument("--only", choices=tuple(ONLY), help="episodes that ended so")
    parser.add_argument("--episode", action="append", metavar="ID", help="this episode, as 12/3/0")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N episodes of each file")
    parser.add_argument("--concurrency", type=positive, default=16, metavar="N", help="episodes at once (default: 16)")
    parser.add_argument(
        "--placement", choices=get_args(Kind), help="where environments run (default: not in this process)"
    )
    parser.add_argument(
        "--call-seconds", type=seconds, default=120.0, metavar="S", help="most of one call of an environment"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Replay and print."""
    from palaestra.envs.deadline import run_to_the_end

    results = run_to_the_end(_replay(args))
    counts = {name: Counter[str](replay.result for replay in found) for name, found in results.items()}
    total = sum(counts.values(), Counter[str]())
    odd = [replay for found in results.values() for replay in found if replay.result != "identical"]
    ok = total["identical"] > 0 and not total["different"]
    if args.json:
        import msgspec

        print(
            json.dumps(
                {
                    "ok": ok,
                    **_full(total),
                    "stores": {n: _full(c) for n, c in counts.items()},
                    "episodes": msgspec.to_builtins(odd),
                }
            )
        )
        return 0 if ok else 1
    from rich.console import Console

    for line in _told(odd):
        print(line)
    Console().print(_table(counts))
    return 0 if ok else 1


async def _replay(args: argparse.Namespace) -> dict[str, list[Replay]]:
    """Every result, by trajectory file. Of what is identical nothing but that is kept."""
    from palaestra.cli.progress import Bars
    from palaestra.trajectories.replay import replay_all

    results: dict[str, list[Replay]] = {}
    with Bars() as bars:
        for store in _stores(args):
            move = bars.add(store.stem)
            total = sum(1 for _ in _chosen(store, args)) if bars.console.is_terminal else None
            found = results[store.stem] = []
            replays = replay_all(
                _chosen(store, args),
                make_env=lambda id: _apart(id, args.placement, args.call_seconds),
                concurrency=args.concurrency,
                seconds=args.call_seconds,
            )
            async for result in replays:
                found.append(result)
                different = sum(replay.result == "different" for replay in found)
                move(len(found), total, f"{different} differ" if different else "")
            if not found:
                _say_what_is_empty(store)
    return results


def _apart(id: str, placement: Kind | None, seconds: float) -> Env[Any, Any]:
    """The environment, out of this process where nobody says otherwise: one that blocks or exits does so there."""
    import msgspec

    from palaestra.envs.registry import make, spec

    where = spec(id).placement
    kind = placement or ("process" if where.kind in ("inline", "thread") else where.kind)
    old = where.deadlines
    phases = {name: max(seconds, getattr(old, name)) for name in ("reset", "step", "verify", "close")}
    deadlines = msgspec.structs.replace(old, **phases)  # the shorter ones are the replay's to keep
    return make(id, placement=msgspec.structs.replace(where, kind=kind, deadlines=deadlines))


def _say_what_is_empty(store: Path) -> None:
    from palaestra.trajectories.store import read_trajectories

    if next(read_trajectories(store), None) is None:
        print(f"{store}: holds no whole episode", file=sys.stderr)


def _stores(args: argparse.Namespace) -> list[Path]:
    from palaestra.trajectories.replay import stores_of

    stores = stores_of(args.run)
    if not args.store:
        return stores
    by_name = {store.stem: store for store in stores}
    if unknown := [name for name in args.store if name not in by_name]:
        raise DataError(f"{args.run} has no trajectories {unknown[0]!r}; it has {', '.join(by_name)}")
    return [by_name[name] for name in args.store]


def _chosen(store: Path, args: argparse.Namespace) -> Iterator[Trajectory]:
    from palaestra.trajectories.store import read_trajectories

    wanted = (
        trajectory
        for trajectory in read_trajectories(store)
        if (not args.only or ONLY[args.only](trajectory)) and (not args.episode or trajectory.id in args.episode)
    )
    return itertools.islice(wanted, args.limit)


def _told(odd: list[Replay]) -> Iterator[str]:
    """What was not identical, for reading."""
    different = [replay for replay in odd if replay.result == "different"]
    for number, replay in enumerate(different):
        where = f"step {replay.step}" if replay.step else "the start"
        yield f"{replay.id} ({replay.task}) differs at {where}: {replay.reason}"
        if number < _SHOWN:
            yield replay.diff
            yield ""
    reasons = Counter(replay.reason for replay in odd if replay.result == "impossible")
    for reason, count in reasons.most_common():
        yield f"{count} cannot be replayed: {reason}"


def _full(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in ("identical", "different", "impossible")}


def _table(counts: dict[str, Counter[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("episodes of")
    for name in ("identical", "different", "impossible"):
        table.add_column(name, justify="right")
    for store, found in counts.items():
        table.add_row(store, *(str(number) for number in _full(found).values()))
    return table
