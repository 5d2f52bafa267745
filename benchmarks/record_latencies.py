"""Record how long environments take: what `scale_simulation.py` is driven by.

Plays some episodes of each suite with its oracle, or with a script of commands where an agent would be at work for long
(software engineering), two at once, and writes seconds of start, reset, every step and verification to
`traces/latencies.json`.

    python benchmarks/record_latencies.py [SUITE ...]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from palaestra.agents.agent import Agent
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.agents.scripted import OracleAgent, RandomAgent, ScriptedAgent
from palaestra.envs.core import Env, Reset, SupportsVerify, Verdict
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.envs.wrappers import Wrapper

T = TypeVar("T")

TRACES = Path(__file__).parent / "traces" / "latencies.json"
AT_ONCE = 2

WORK = ScriptedAgent(
    (
        "<shell>ls -la && git log --oneline | head -3</shell>",
        "<view>.</view>",
        "<shell>find . -name '*.py' | head -50 | xargs wc -l | tail -1</shell>",
        "<search>def </search>",
        "<shell>python3 -m pytest -q -x 2>&1 | tail -5</shell>",
        "<shell>grep -rn 'raise' --include=*.py . | head -20</shell>",
        "<shell>python3 -m compileall -q .</shell>",
        "<shell>git status --short</shell>",
        "<shell>python3 -m pytest -q 2>&1 | tail -5</shell>",
        "<shell>git diff --stat</shell>",
        "<submit></submit>",
    ),
    name="work",
)
"""What an agent does to a bug before it knows it."""

SUITES: dict[str, tuple[str, int, Agent]] = {
    "alfworld": ("alfworld:test", 60, OracleAgent()),
    "search": ("search:test", 60, OracleAgent()),
    "webshop": ("webshop:test", 60, OracleAgent()),
    "textworld": ("textworld:test", 20, RandomAgent()),
    "scienceworld": ("scienceworld:test", 12, OracleAgent()),
    "swe": ("swe/releases:test", 8, WORK),
}


class Timed(Wrapper):
    """Notes how long everything but steps takes; the rollout driver notes those."""

    def __init__(self, env: Env[Any, Any], noted: dict[str, float]) -> None:
        super().__init__(env)
        self.noted = noted
        if isinstance(env, SupportsVerify):  # whoever cannot must not seem to
            self.__dict__["verify"] = self._verify

    async def start(self) -> None:
        await self._timed("start", super().start())

    async def reset(self, **arguments: Any) -> Reset[Any]:
        return await self._timed("reset", super().reset(**arguments))

    async def _verify(self) -> Verdict:
        assert isinstance(self.env, SupportsVerify)
        return await self._timed("verify", self.env.verify())

    async def _timed(self, what: str, work: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await work
        finally:
            self.noted[what] = time.perf_counter() - began


async def record(reference: str, count: int, agent: Agent) -> list[dict[str, Any]]:
    """Seconds by what took them, one dictionary an episode; those that failed are left out."""
    suite = load_suite(reference)
    found = []
    for start in range(0, min(count, len(suite)), AT_ONCE):
        made: list[dict[str, float]] = []

        def timed(name: str, made: list[dict[str, float]] = made) -> Env[Any, Any]:
            made.append({})
            return Timed(make(name), made[-1])

        tasks = [suite[index] for index in range(start, min(start + AT_ONCE, count, len(suite)))]
        episodes = [Episode(task=task, id=task.name, seed=0) for task in tasks]
        played = await rollout(episodes, agent, timed, RolloutLimits(concurrency=AT_ONCE, retries=0, max_turns=60))
        for noted, trajectory in zip(made, played, strict=True):
            if trajectory.status == "ok" and trajectory.steps:
                steps = [_short(step.env_seconds) for step in trajectory.steps]
                found.append({**{what: _short(s) for what, s in noted.items()}, "steps": steps})
    return found


def _short(seconds: float) -> float:
    return float(f"{seconds:.3g}")


def main(names: Sequence[str]) -> None:
    known = json.loads(TRACES.read_text()) if TRACES.exists() else {"machine": "2 cores, no GPU", "suites": {}}
    for name in names or SUITES:
        began = time.perf_counter()
        episodes = asyncio.run(record(*SUITES[name]))
        known["suites"][name] = episodes
        steps = sum(len(episode["steps"]) for episode in episodes)
        print(f"{name}: {len(episodes)} episodes, {steps} steps in {time.perf_counter() - began:.0f} s", flush=True)
        TRACES.parent.mkdir(exist_ok=True)
        TRACES.write_text(json.dumps(known, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
