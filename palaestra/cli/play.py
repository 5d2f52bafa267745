"""Play an episode yourself: what an agent sees, and your commands for its actions.

A line is an action; one that ends with a backslash goes on in the next line. `/actions` lists what is admissible (Tab
completes it), `/hint` asks the environment's expert, `/look` shows the last observation again, `/quit` ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palaestra.cli.eval import suite_params
from palaestra.cli.parser import Parser, non_negative, positive
from palaestra.errors import ConfigError

if TYPE_CHECKING:
    from palaestra.envs.core import Env, Step
    from palaestra.envs.tasks import Task

EXAMPLES = """  palaestra play alfworld:test
  palaestra play alfworld/full:train[7:8] --max-turns 20
  palaestra play alfworld/Household-v0 --seed 3
  palaestra play textworld/cooking-easy:train --param progress=true
  palaestra play quiz/Capitals-v0 --import quiz.py"""


def configure(parser: Parser) -> None:
    """Declare the arguments."""
    parser.accept_imports()
    parser.add_argument(
        "what", metavar="ID", help="an environment, as alfworld/Household-v0, or a suite, whose first task is played"
    )
    parser.add_argument("--seed", type=non_negative, help="of the episode (default: the task's, or a fresh one)")
    parser.add_argument("--max-turns", type=positive, metavar="N", help="most actions (default: no limit of ours)")
    parser.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of the suite")


def run(args: argparse.Namespace) -> int:
    """Play; 0 whatever comes of it."""
    env_id, task = _chosen(args)
    # One call of the event loop each: between them nothing of it stands in the way of Ctrl-C and line editing.
    with asyncio.Runner() as runner:
        from palaestra.envs.registry import make

        game = Game(make(env_id), runner)
        try:
            game.begin(task, args.seed)
            while not game.over and (args.max_turns is None or game.turns < args.max_turns):
                line = _read()
                if line is None or line == "/quit":
                    break
                game.hear(line)
            game.tell_the_end()
        finally:
            game.close()
    return 0


def _chosen(args: argparse.Namespace) -> tuple[str, Task | None]:
    from palaestra.envs.tasks import load_suite

    if ":" not in args.what:
        if args.param:
            raise ConfigError(f"--param is for suites, as alfworld:test, and {args.what!r} is none")
        return args.what, None
    suite = load_suite(args.what, **suite_params(args.param))
    if not len(suite):
        raise ConfigError(f"the suite {args.what} has no tasks")
    return suite[0].env, suite[0]


@dataclass
class Game:
    """One episode and the person who plays it."""

    env: Env[Any, Any]
    runner: asyncio.Runner
    turns: int = 0
    score: float = 0.0
    over: bool = False
    shown: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    def begin(self, task: Task | None, seed: int | None) -> None:
        """Reset, and show the first observation."""
        seed = task.seed if task is not None and seed is None else seed
        first = self.runner.run(self.env.reset(seed=seed, task=task))
        self._see(first.observation, first.info)

    def hear(self, line: str) -> None:
        """Do what a line says."""
        if line == "/actions":
            listed = self.info.get("admissible_commands")
            _say("\n".join(map(str, listed)) if listed else "the environment lists none; write what you like")
        elif line == "/look":
            _say(self.shown)
        elif line == "/hint":
            _say(str(self.runner.run(self.env.oracle())) if hasattr(self.env, "oracle") else "there is no expert here")
        elif line.startswith("/"):
            _say("/actions  /hint  /look  /quit; anything else is your action")
        else:
            self._act(line)

    def tell_the_end(self) -> None:
        """How the episode went."""
        solved = "solved" if self.info.get("success", self.score > 0) else "not solved"
        _say(f"{solved} after {self.turns} turns, return {self.score:g}")

    def close(self) -> None:
        """Close the environment."""
        self.runner.run(self.env.close())

    def _act(self, action: str) -> None:
        step: Step[Any] = self.runner.run(self.env.step(action))
        self.turns += 1
        self.score += float(step.reward)
        self.over = step.terminated or step.truncated
        if self.over and hasattr(self.env, "verify"):
            verdict = self.runner.run(self.env.verify())
            self.score += float(verdict.reward)
            step.info["success"] = verdict.success
        self._see(step.observation, step.info)
        told = "refused, " if step.info.get("invalid") else ""
        end = ", the end" if step.terminated else ", cut off" if step.truncated else ""
        _say(f"[turn {self.turns}: {told}reward {float(step.reward):g}, in all {self.score:g}{end}]")

    def _see(self, observation: Any, info: dict[str, Any]) -> None:
        self.shown, self.info = str(observation), info
        _say(self.shown)
        _complete(info.get("admissible_commands") or ())


def _say(text: str) -> None:
    """Print what an environment says: it may not write to the terminal's controls."""
    print("".join(letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text), flush=True)


def _read() -> str | None:
    """What is typed next, `None` at the end of the input."""
    parts: list[str] = []
    while True:
        try:
            line = input("" if not sys.stdin.isatty() else "... " if parts else "> ")
        except EOFError:
            return "\n".join(parts) if parts else None
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(parts)


def _complete(commands: Any) -> None:
    """Let Tab complete admissible commands; line editing comes with it, where the terminal has it."""
    with suppress(ImportError):
        import readline

        listed = [str(command) for command in commands]

        def complete(text: str, state: int) -> str | None:
            fitting = [command for command in listed if command.startswith(text)]
            return fitting[state] if state < len(fitting) else None

        readline.set_completer_delims("")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
