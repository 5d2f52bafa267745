"""`check_env`: the environment contract made executable, and the determinism grade.

    print(check_env("quiz/Capitals-v0"))

Each check passes, fails with a reason that says how to mend it, or is skipped because the environment does not offer
what it looks at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec

from palaestra.envs.checks import CHECKS, GATES, Broken, Probe, Skipped
from palaestra.envs.core import Env
from palaestra.envs.episode import Choose, Episode, any_command, play
from palaestra.envs.registry import EnvSpec, build, make, spec
from palaestra.envs.wrappers import OrderEnforcing
from palaestra.errors import EnvError, PalaestraError

Checkable = str | EnvSpec | Callable[[], Any]
"""An id, a spec, or a class or function that makes a new environment each time."""

Grade = Literal["exact", "seeded", "noisy"]


class Check(msgspec.Struct, frozen=True):
    """One promise of the contract."""

    name: str
    outcome: Literal["pass", "fail", "skip"]
    reason: str = ""
    """Why it failed or was skipped."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `check_env` found; `str(report)` is for reading."""

    env: str
    checks: tuple[Check, ...]
    determinism: Grade | None
    """`exact`: seed and actions fix every observation, reward and flag. `seeded`: the seed fixes the first observation.
    `noisy`: neither. `None`: could not be played."""
    episodes: int
    """Episodes that the grade rests on."""
    steps: int
    """Steps of these episodes."""

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.outcome == "fail"]

    def to_json(self) -> str:
        """The report as a JSON object, `ok` included."""
        return msgspec.json.encode({"ok": self.ok, **msgspec.to_builtins(self)}).decode()

    def raise_if_failed(self) -> None:
        """Raise what failed.

        Raises:
            EnvError: a check failed; the message lists all that did.
        """
        if not self.ok:
            listed = "; ".join(f"{check.name}: {check.reason}" for check in self.failures)
            raise EnvError(f"{self.env} breaks the contract: {listed}")

    def __str__(self) -> str:
        marks = {"pass": "✓", "fail": "✗", "skip": "–"}
        width = max(len(check.name) for check in self.checks)
        rows = [f"  {marks[c.outcome]} {c.name:{width}}  {c.reason}".rstrip() for c in self.checks]
        counts = [sum(c.outcome == outcome for c in self.checks) for outcome in marks]
        played = f"{self.episodes} episodes, {self.steps} steps"
        summary = f"{counts[0]} passed, {counts[1]} failed, {counts[2]} skipped"
        return "\n".join([self.env, *rows, f"{summary}; determinism: {self.determinism or 'unknown'} ({played})"])


def check_env(
    env: Checkable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    actions: Choose | Sequence[Any] = any_command,
) -> Report:
    """Check an environment against the contract. In a coroutine, `await acheck(...)` instead.

    Args:
        env: an id, a spec, or a class or function that makes a new environment each time.
        seeds: one episode is played, and played again, with each.
        max_steps: episodes are left after so many steps.
        actions: what to play: actions in order (repeated if they run out), or a function of the last info and a
            `random.Random`. By default any of `info["admissible_commands"]`, or common commands where there are none.

    Returns:
        The report; nothing that the environment does makes this raise, except an id that does not exist.

    Raises:
        UnknownNameError: no such id.
        EnvError: `env` is an instance, which cannot be made anew; or an event loop is running here.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(acheck(env, seeds=seeds, max_steps=max_steps, actions=actions))
    raise EnvError("check_env cannot run inside an event loop; write: await acheck(...)")


async def acheck(
    env: Checkable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    actions: Choose | Sequence[Any] = any_command,
) -> Report:
    """`check_env` as a coroutine."""
    if not seeds or not (callable(actions) or actions):
        raise EnvError("check_env needs at least one seed and one action")
    name, factory, known = _factory(env)
    probe = Probe(factory, known, tuple(seeds), max_steps, actions)
    checks: list[Check] = []
    for title, check in CHECKS.items():
        missing = next((c.name for c in checks if c.name in GATES and c.outcome == "fail"), None)
        checks.append(Check(title, "skip", f"needs {missing}") if missing else await _run(title, check, probe))
    playable = all(check.outcome == "pass" for check in checks if check.name in GATES)
    episodes = await probe.episodes() if playable else []
    return Report(
        env=name,
        checks=tuple(checks),
        determinism=await _grade(probe, episodes) if playable else None,
        episodes=len(episodes),
        steps=sum(len(episode.steps) for episode in episodes),
    )


def _factory(env: Checkable) -> tuple[str, Callable[[], Env[Any, Any]], EnvSpec | None]:
    if isinstance(env, str):
        env = spec(env)
    if isinstance(env, EnvSpec):
        known = env
        return known.id, lambda: make(known), known
    if not callable(env):
        raise EnvError(f"check_env makes the environment anew, so give it an id, a spec or a class, not {env!r}")
    name, maker = getattr(env, "__qualname__", repr(env)), env
    return name, lambda: OrderEnforcing(build(maker, {}, name)), None


async def _run(title: str, check: Callable[[Probe], Awaitable[None]], probe: Probe) -> Check:
    try:
        await check(probe)
    except Skipped as skipped:
        return Check(title, "skip", str(skipped))
    except (Broken, PalaestraError) as broken:
        return Check(title, "fail", str(broken))
    except Exception as error:
        return Check(title, "fail", f"raised {type(error).__name__}: {error}")
    return Check(title, "pass")


async def _grade(probe: Probe, episodes: Sequence[Episode]) -> Grade:
    """Play every episode again, with the same actions in a new instance, and compare the hash chains."""
    grades: set[Grade] = set()
    for episode in episodes:
        try:
            async with probe.make() as env:
                again = await play(env, episode.seed, episode.actions, len(episode.actions))
        except Exception:  # what worked before does not work now
            grades.add("noisy")
            continue
        seeded: Grade = "seeded" if again.links[0] == episode.links[0] else "noisy"
        grades.add("exact" if again.links == episode.links else seeded)
    return max(grades, key=("exact", "seeded", "noisy").index)
