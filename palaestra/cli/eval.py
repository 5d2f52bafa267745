"""Run an agent on a task suite: success with a 95 % interval, length, refused actions, a row per task type."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser, UsageError, non_negative, positive

if TYPE_CHECKING:
    from palaestra.config import AgentConfig
    from palaestra.evaluation.result import EvalResult

EXAMPLES = """  palaestra eval alfworld:test --agent oracle
  palaestra eval alfworld/full:validation --agent random --episodes 500 --json
  palaestra eval alfworld:test --agent runs/demo --temperature 0.4
  palaestra eval alfworld:test --agent model.gguf --action choice --episodes 20
  palaestra eval alfworld:test --agent palaestra-tiny --out runs/base --resume
  palaestra eval quiz:test --agent random --import quiz.py"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument(
        "suite", metavar="SUITE", help="NAME[/LEVEL]:SPLIT, as in alfworld/small:test or alfworld:test[300:600]"
    )
    parser.add_argument(
        "--agent", required=True, help="random, oracle, a run directory, palaestra-tiny, a model directory or GGUF file"
    )
    parser.add_argument("--episodes", type=positive, default=200, metavar="N", help="tasks to play (default: 200)")
    parser.add_argument("--seed", type=non_negative, default=0, help="of what the agent draws (default: 0)")
    parser.add_argument("--temperature", type=float, help="of a model's sampling; 0 takes the likeliest token")
    parser.add_argument(
        "--action", choices=("text", "choice"), help="write commands freely, or only admissible ones (default: text)"
    )
    parser.add_argument("--max-turns", type=positive, default=50, metavar="N", help="most actions of an episode")
    parser.add_argument("--concurrency", type=positive, default=64, metavar="N", help="episodes at once (default: 64)")
    parser.add_argument("--device", default="cpu", help="torch device of a model (default: cpu)")
    parser.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of the suite, as data=FOLDER"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="store episodes and result in DIR, laid out as a run")
    parser.add_argument("--resume", action="store_true", help="go on with the episodes that --out already holds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, store."""
    if args.resume and args.out is None:
        raise UsageError("--resume needs --out, the folder that holds the episodes so far")
    result = asyncio.run(_evaluate(args))
    if args.out is not None:
        result.save(args.out / "eval" / f"{_tag(args)}.json")
    if args.json:
        print(result.to_json())
        return 0
    from rich.console import Console

    from palaestra.cli.tables import result_table

    Console().print(result_table(result))
    return 0


async def _evaluate(args: argparse.Namespace) -> EvalResult:
    from palaestra.agents.opening import PLAIN, open_agent
    from palaestra.agents.rollout import RolloutLimits
    from palaestra.cli.progress import Bars
    from palaestra.envs.tasks import load_suite
    from palaestra.evaluation.evaluate import evaluate

    suite = load_suite(args.suite, **_params(args.param))
    settings = _settings(args)
    store = _store(args)
    async with open_agent(args.agent, settings, slots=args.concurrency, device=args.device) as agent:
        with Bars() as bars:
            return await evaluate(
                suite,
                agent,
                episodes=args.episodes,
                name=args.suite,
                seed=args.seed,
                limits=RolloutLimits(max_turns=args.max_turns, concurrency=args.concurrency),
                temperature=None if args.agent in PLAIN else settings.temperature,
                store=store,
                resume=args.resume,
                progress=bars.episodes(f"{args.agent} on {args.suite}"),
            )


def _settings(args: argparse.Namespace) -> AgentConfig:
    """A run's own settings, or the defaults, with what the command line says."""
    import msgspec

    from palaestra.agents.opening import settings_of

    if args.temperature is not None and args.temperature < 0:
        raise UsageError(f"--temperature is 0 or more, not {args.temperature:g}")
    said: dict[str, Any] = {"action": args.action, "temperature": args.temperature}
    changes = {key: value for key, value in said.items() if value is not None}
    return msgspec.structs.replace(settings_of(args.agent), **changes)


def _params(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not re.fullmatch(r"\w+=.*", pair):
            raise UsageError(f"--param {pair!r} is not KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _tag(args: argparse.Namespace) -> str:
    """A file name for this agent on this suite: `oracle-alfworld-small-test`."""
    return re.sub(r"[^\w.]+", "-", f"{Path(args.agent).name}-{args.suite}").strip("-")


def _store(args: argparse.Namespace) -> Path | None:
    if args.out is None:
        return None
    store: Path = args.out / "trajectories" / f"eval-{_tag(args)}.ptj"
    store.parent.mkdir(parents=True, exist_ok=True)
    if args.resume and store.exists():
        print(f"going on with {store}", file=sys.stderr)
    return store
