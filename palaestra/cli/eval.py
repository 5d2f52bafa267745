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
    from palaestra.agents.agent import Agent
    from palaestra.cli.progress import Bars
    from palaestra.config import AgentConfig
    from palaestra.envs.tasks import TaskSuite
    from palaestra.evaluation.result import EvalResult
    from palaestra.trajectories.record import Trajectory

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
    try:
        result = _evaluate(args)
    except KeyboardInterrupt:
        hint = f"finished episodes are in {args.out}, go on with --resume" if args.out is not None else ""
        raise KeyboardInterrupt(hint) from None
    if args.out is not None:
        result.save(args.out / "eval" / f"{_tag(args)}.json")
    if args.json:
        print(result.to_json())
        return 0
    from rich.console import Console

    from palaestra.cli.tables import result_table

    Console().print(result_table(result))
    return 0


def _evaluate(args: argparse.Namespace) -> EvalResult:
    """Everything is loaded before the event loop starts, which would hold Ctrl-C back until then."""
    from palaestra.agents.opening import load_agent
    from palaestra.cli.progress import Bars
    from palaestra.envs.tasks import load_suite

    suite = load_suite(args.suite, **_params(args.param))
    settings = _settings(args)
    agent = load_agent(args.agent, settings, slots=args.concurrency, device=args.device)
    store = _store(args)
    with Bars() as bars:
        return asyncio.run(_play(args, suite, agent, settings, store, bars))


async def _play(
    args: argparse.Namespace, suite: TaskSuite, agent: Agent, settings: AgentConfig, store: Path | None, bars: Bars
) -> EvalResult:
    from palaestra.agents.opening import PLAIN, closing
    from palaestra.agents.rollout import RolloutLimits
    from palaestra.evaluation.evaluate import evaluate

    errors: list[str] = []
    show = bars.episodes(f"{args.agent} on {args.suite}")

    def progress(done: int, total: int, latest: Trajectory | None) -> None:
        if latest is not None and latest.error:
            errors.append(latest.error)
        show(done, total, latest)

    async with closing(agent):
        result = await evaluate(
            suite,
            agent,
            episodes=args.episodes,
            name=args.suite,
            seed=args.seed,
            limits=RolloutLimits(max_turns=args.max_turns, concurrency=args.concurrency),
            temperature=None if args.agent in PLAIN else settings.temperature,
            store=store,
            resume=args.resume,
            progress=progress,
        )
    if errors:
        print(
            f"palaestra: warning: {len(errors)} of {result.n} episodes failed, the first: {errors[0]}", file=sys.stderr
        )
    return result


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
    if args.resume and store.exists():
        print(f"going on with {store}", file=sys.stderr)
    return store
