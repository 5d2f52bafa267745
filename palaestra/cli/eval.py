"""Run an agent on a task suite: success with a 95 % interval, length, refused actions, a row per task type."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palaestra.cli.endpoint import configure_endpoint, endpoint_settings, refuse_endpoint_options
from palaestra.cli.parser import Parser, UsageError, non_negative, positive, share, temperature

if TYPE_CHECKING:
    from palaestra.agents.agent import Agent
    from palaestra.agents.rollout import RolloutLimits
    from palaestra.cli.progress import EpisodeProgress
    from palaestra.config import AgentConfig
    from palaestra.envs.tasks import TaskSuite
    from palaestra.evaluation.result import EvalResult
    from palaestra.trajectories.record import Trajectory

EXAMPLES = """  palaestra eval alfworld:test --agent oracle
  palaestra eval alfworld/full:validation --agent random --episodes 500 --json
  palaestra eval alfworld:test --agent runs/demo --temperature 0.4
  palaestra eval alfworld:test --agent model.gguf --action choice --episodes 20
  palaestra eval alfworld:test --agent palaestra-tiny --out runs/base --resume
  palaestra eval quiz:test --agent random --import quiz.py
  palaestra eval alfworld:test --agent openai:my-model@http://127.0.0.1:8000/v1 --episodes 50
  palaestra eval search:test --agent openai:gpt-4.1-mini --action tool --price 0.40,1.60 --requests-per-minute 300"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument(
        "suite", metavar="SUITE", help="NAME[/LEVEL]:SPLIT, as in alfworld/small:test or alfworld:test[300:600]"
    )
    parser.add_argument(
        "--agent",
        required=True,
        help="random, oracle, a run directory, palaestra-tiny, a model directory or GGUF file, or openai:MODEL[@URL]",
    )
    parser.add_argument("--episodes", type=positive, default=200, metavar="N", help="tasks to play (default: 200)")
    parser.add_argument("--seed", type=non_negative, default=0, help="of what the agent draws (default: 0)")
    parser.add_argument("--temperature", type=temperature, help="of a model's sampling; 0 takes the likeliest token")
    parser.add_argument("--top-k", type=non_negative, default=0, metavar="K", help="sample from the K likeliest tokens")
    parser.add_argument(
        "--top-p", type=share, default=1.0, metavar="P", help="sample from the likeliest tokens that make up P of all"
    )
    parser.add_argument(
        "--action",
        choices=("text", "choice", "message", "tool"),
        help="write commands freely, only admissible ones, whole messages, or call tools (default: the run's, or text)",
    )
    parser.add_argument(
        "--max-turns", type=positive, metavar="N", help="most actions of an episode (default: the run's, or 50)"
    )
    parser.add_argument("--concurrency", type=positive, default=64, metavar="N", help="episodes at once (default: 64)")
    parser.add_argument("--device", help="torch device of a model (default: the run's, or cpu)")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="parameter of the suite, as data=FOLDER or progress=true",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="store episodes and result in DIR, laid out as a run")
    parser.add_argument("--resume", action="store_true", help="go on with the episodes that --out already holds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    configure_endpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, store; 1 where not one episode could be played."""
    if args.resume and args.out is None:
        raise UsageError("--resume needs --out, the folder that holds the episodes so far")
    watch = _Watch()
    try:
        result = _evaluate(args, watch)
    except KeyboardInterrupt:
        hint = f"finished episodes are in {args.out}, go on with --resume" if args.out and watch.done else ""
        raise KeyboardInterrupt(hint) from None
    if len(watch.errors) == result.n:
        print(f"palaestra: no episode of {args.suite} can be played, the first: {watch.errors[0]}", file=sys.stderr)
        return 1
    if watch.errors:
        told = f"{len(watch.errors)} of {result.n} episodes failed, the first: {watch.errors[0]}"
        print(f"palaestra: warning: {told}", file=sys.stderr)
    if args.out is not None:
        result.save(args.out / "eval" / f"{_tag(args)}.json")
    _show(result, as_json=args.json)
    return 0


class _Watch:
    """What has come of the episodes so far."""

    def __init__(self) -> None:
        self.done = 0
        self.errors: list[str] = []

    def __call__(self, done: int, total: int, latest: Trajectory | None) -> None:
        self.done = done
        if latest is not None and latest.error:
            self.errors.append(latest.error)


def _show(result: EvalResult, *, as_json: bool) -> None:
    if as_json:
        print(result.to_json())
        return
    from rich.console import Console

    from palaestra.cli.tables import result_table

    Console().print(result_table(result))


def _evaluate(args: argparse.Namespace, watch: _Watch) -> EvalResult:
    """Everything is loaded before the event loop starts, which would hold Ctrl-C back until then."""
    from palaestra.cli.progress import Bars
    from palaestra.envs.deadline import run_to_the_end
    from palaestra.envs.tasks import load_suite

    suite = load_suite(args.suite, **suite_params(args.param))
    agent, limits = _agent(args), _limits(args)
    store = _store(args)
    with Bars() as bars:
        show = bars.episodes(f"{args.agent} on {args.suite}")

        def progress(done: int, total: int, latest: Trajectory | None) -> None:
            watch(done, total, latest)
            show(done, total, latest)

        return run_to_the_end(_play(args, suite, agent, limits, store, progress), cancellable=True)


async def _play(
    args: argparse.Namespace,
    suite: TaskSuite,
    agent: Agent,
    limits: RolloutLimits,
    store: Path | None,
    progress: EpisodeProgress,
) -> EvalResult:
    from palaestra.agents.opening import closing
    from palaestra.evaluation.evaluate import evaluate

    async with closing(agent):
        return await evaluate(
            suite,
            agent,
            episodes=args.episodes,
            name=args.suite,
            seed=args.seed,
            limits=limits,
            temperature=getattr(agent, "temperature", None),
            store=store,
            resume=args.resume,
            progress=progress,
        )


def _agent(args: argparse.Namespace) -> Agent:
    from palaestra.agents.engines.openai.address import is_api
    from palaestra.agents.opening import load_agent

    if is_api(args.agent):
        return load_agent(args.agent, endpoint=endpoint_settings(args))
    refuse_endpoint_options(args)
    return load_agent(
        args.agent, _settings(args), top_k=args.top_k, top_p=args.top_p, slots=args.concurrency, device=args.device
    )


def _settings(args: argparse.Namespace) -> AgentConfig:
    """A run's own settings, or the defaults, with what the command line says."""
    import msgspec

    from palaestra.agents.opening import settings_of

    said: dict[str, Any] = {"action": args.action, "temperature": args.temperature}
    changes = {key: value for key, value in said.items() if value is not None}
    return msgspec.structs.replace(settings_of(args.agent), **changes)


def _limits(args: argparse.Namespace) -> RolloutLimits:
    """A run's own limits, or the defaults, with what the command line says."""
    from palaestra.agents.opening import limits_of, recipe_of
    from palaestra.agents.rollout import RolloutLimits

    recipe = recipe_of(args.agent)
    limits = RolloutLimits() if recipe is None else limits_of(recipe)
    return replace(limits, max_turns=args.max_turns or limits.max_turns, concurrency=args.concurrency)


def suite_params(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE, the value in YAML, of each `--param`.

    Raises:
        UsageError: one is no such pair.
        ConfigError: a value is not YAML.
    """
    from palaestra.config import apply_override

    params: dict[str, Any] = {}
    for pair in pairs:
        if not re.fullmatch(r"\w+=.*", pair, re.DOTALL):
            raise UsageError(f"--param {pair!r} is not KEY=VALUE")
        apply_override(params, pair)
    return params


def _tag(args: argparse.Namespace) -> str:
    """A file name for this agent on this suite: `oracle-alfworld-small-test`."""
    from palaestra.agents.engines.openai.address import is_api

    agent = args.agent if is_api(args.agent) else Path(args.agent).name
    return re.sub(r"[^\w.]+", "-", f"{agent}-{args.suite}").strip("-")


def _store(args: argparse.Namespace) -> Path | None:
    if args.out is None:
        return None
    store: Path = args.out / "trajectories" / f"eval-{_tag(args)}.ptj"
    if args.resume and store.exists():
        print(f"going on with {store}", file=sys.stderr)
    return store
