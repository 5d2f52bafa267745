"""The original `alfworld` as a process of its own: one thread, JSON lines in and out.

Its planner is not thread-safe, prints to standard output and can end the process, so it never runs inside the tests.
As a script this file is that process; imported, it offers `Original`, the client.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from functools import lru_cache
from types import TracebackType
from typing import Any, NamedTuple, Self


def interpreter() -> str | None:
    """A Python that has `alfworld`: `PALAESTRA_ALFWORLD_PYTHON`, else this one, else None."""
    from importlib.util import find_spec

    return os.environ.get("PALAESTRA_ALFWORLD_PYTHON") or (sys.executable if find_spec("alfworld") else None)


class Answer(NamedTuple):
    """What the original says, in our names."""

    text: str
    won: bool
    commands: list[str]
    seconds: float
    """CPU time inside `reset` or `step`."""


class Original:
    """Plays our games on the original; use as a context manager."""

    def __init__(self, python: str, parse_cache: bool = False) -> None:
        """Start it; with `parse_cache` it parses each text template once only, and is otherwise unchanged."""
        options = ["--parse-cache"] if parse_cache else []
        self._process = subprocess.Popen(
            [python, "-W", "ignore", __file__, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def load(self, game: dict[str, Any]) -> Answer:
        """Begin `game`, a Game as builtins."""
        reply = self._ask({"game": game})
        names = {f"r{i:03}": f"{kind.lower()} {n}" for i, (kind, n) in enumerate(game["receptacles"])}
        names |= {f"o{i:03}": f"{kind.lower()} {n}" for i, (kind, n, _) in enumerate(game["objects"])}
        self._ours = {theirs: names[index] for index, theirs in reply["names"].items()}
        self._theirs = {ours: theirs for theirs, ours in self._ours.items()}
        assert len(self._theirs) == len(self._ours) == len(names)
        return self._answer(reply)

    def step(self, command: str) -> Answer:
        """Do a command that uses our names."""
        return self._answer(self._ask({"command": _renamed(command, self._theirs)}))

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the original ended with exit code {self._process.wait(10)}")
        return json.loads(line)

    def _answer(self, reply: dict[str, Any]) -> Answer:
        commands = [_renamed(command, self._ours) for command in reply["commands"]]
        return Answer(_renamed(reply["text"], self._ours), reply["won"], commands, reply["seconds"])


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub(r"[a-z]+ \d+", lambda match: names.get(match[0], match[0]), text)


def _cache_parses() -> None:
    from textworld.envs.pddl import textgen

    parse, parse_query = textgen._parse_and_convert, textgen.Rule.parse_conjunctive_query
    parsed = lru_cache(None)(lambda text, rule_name: pickle.dumps(parse(text, rule_name=rule_name)))
    textgen._parse_and_convert = lambda text, rule_name, **_: pickle.loads(parsed(text, rule_name))
    textgen.Rule.parse_conjunctive_query = staticmethod(lru_cache(None)(parse_query))


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the planner's chatter goes to standard error
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from alfworld_pddl import game_data, index_of
    from textworld.envs import PddlEnv

    if "--parse-cache" in sys.argv:
        _cache_parses()
    env = None
    for line in sys.stdin:
        message, names = json.loads(line), {}
        if "game" in message:
            if env is not None:
                env.close()
            infos = textworld.EnvInfos(admissible_commands=True, won=True)
            env = AlfredDemangler(PddlEnv(infos), shuffle=False)
            env.load(game_data(message["game"]))
            identified = {index_of(info.id): info.name.strip() for info in env._entity_infos.values()}
            names = {index: name for index, name in identified.items() if index}
        start = time.process_time()
        state = env.reset() if names else env.step(message["command"])[0]
        seconds = time.process_time() - start
        reply = {"text": state.feedback, "won": state["won"], "commands": state["admissible_commands"]}
        print(json.dumps({**reply, "names": names, "seconds": seconds}), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
