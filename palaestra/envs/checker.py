"""`check_env`: the environment contract made executable, and the determinism grade.

    print(check_env("quiz/Capitals-v0"))

Each check passes, fails with a reason that says how to mend it, is marked for a person to look at, or is skipped
because the environment does not offer what it looks at.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from palaestra.envs.checks import CHECKS, GATES, CheckFunction
from palaestra.envs.checks.probe import Broken, Odd, Probe, Skipped
from palaestra.envs.checks.report import Check, Grade, Report
from palaestra.envs.core import Env
from palaestra.envs.deadline import Limits, Watch, run_to_the_end, unblocking
from palaestra.envs.episode import Choose, Episode, any_command
from palaestra.envs.isolation.placement import Kind
from palaestra.envs.registry import EnvSpec, build, make, spec
from palaestra.envs.wrappers import OrderEnforcing
from palaestra.errors import EnvError, PalaestraError

__all__ = ["Check", "Checkable", "Grade", "Limits", "Progress", "Report", "acheck", "check_env"]

Checkable = str | EnvSpec | Callable[[], Any]
"""An id, a spec, or a class or function that makes a new environment each time."""

Progress = Callable[[str, Check | None], None]
"""Told the name of each check when it begins, and the check when it is done."""

_EXTRA = r"is not installed; run: pip install '(palaestra\[[\w.-]+\])'"
"""In the message of a `MissingExtraError`."""


def check_env(
    env: Checkable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    actions: Choose | Sequence[Any] = any_command,
    placement: Kind | None = None,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Report:
    """Check an environment against the contract. In a coroutine, `await acheck(...)` instead.

    Args:
        env: an id, a spec, or a class or function that makes a new environment each time.
        seeds: one episode is played, and played again, with each.
        max_steps: episodes are left after so many steps.
        actions: what to play: actions in order (repeated if they run out), or a function of the last info and a
            `random.Random`. By default any of `info["admissible_commands"]`, or common commands where there are none.
        placement: where instances run, instead of where the spec says.
        limits: deadlines. What waits, blocks or ignores being cancelled fails its check when they are over; only what
            ends the process, or blocks outside Python, can end or hang this one. `palaestra check` survives that too.
        progress: told of every check.

    Returns:
        The report; nothing that the environment does makes this raise, except an id that does not exist.

    Raises:
        UnknownNameError: no such id.
        EnvError: `env` is an instance, which cannot be made anew; or an event loop is running here.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        checking = acheck(
            env,
            seeds=seeds,
            max_steps=max_steps,
            actions=actions,
            placement=placement,
            limits=limits,
            progress=progress,
        )
        return run_to_the_end(checking)
    raise EnvError("check_env cannot run inside an event loop; write: await acheck(...)")


async def acheck(
    env: Checkable,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_steps: int = 50,
    actions: Choose | Sequence[Any] = any_command,
    placement: Kind | None = None,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Report:
    """`check_env` as a coroutine."""
    if not seeds or not (callable(actions) or actions):
        raise EnvError("check_env needs at least one seed and one action")
    name, factory, known = _factory(env, placement)
    probe = Probe(factory, known, tuple(seeds), max_steps, actions, Watch(limits))
    with unblocking(limits.call):
        checks = await _run_all(probe, progress)
        playable = all(check.outcome == "pass" for check in checks if check.name in GATES)
        episodes = await probe.episodes() if playable else []
        grade = await _grade(probe, episodes) if playable else None
    return Report(
        env=name,
        placement=known.placement.kind if known else "inline",
        checks=tuple(checks),
        determinism=grade,
        episodes=len(episodes),
        steps=sum(len(episode.steps) for episode in episodes),
        baselines=tuple(probe.baselines),
        missing=_missing(checks),
    )


def _factory(env: Checkable, placement: Kind | None) -> tuple[str, Callable[[], Env[Any, Any]], EnvSpec | None]:
    if isinstance(env, str):
        env = spec(env)
    if isinstance(env, EnvSpec):
        where = msgspec.structs.replace(env.placement, kind=placement or env.placement.kind)
        known = msgspec.structs.replace(env, placement=where)
        return known.id, lambda: make(known), known
    if not callable(env):
        raise EnvError(f"check_env makes the environment anew, so give it an id, a spec or a class, not {env!r}")
    if placement not in (None, "inline"):
        raise EnvError("only a registered environment can be placed elsewhere; register it and give its id")
    name, maker = getattr(env, "__qualname__", repr(env)), env
    return name, lambda: OrderEnforcing(build(maker, {}, name)), None


async def _run_all(probe: Probe, progress: Progress | None) -> list[Check]:
    checks: list[Check] = []
    for title, function in CHECKS.items():
        if progress:
            progress(title, None)
        gate = next((c.name for c in checks if c.name in GATES and c.outcome != "pass"), None)
        check = Check(title, "skip", f"needs {gate}") if gate else await _run(title, function, probe)
        checks.append(check)
        if progress:
            progress(title, check)
    return checks


async def _run(title: str, function: CheckFunction, probe: Probe) -> Check:
    try:
        found = await probe.watch(f"the check {title!r}", function(probe), probe.watch.limits.check)
    except Skipped as skipped:
        return Check(title, "skip", _encodable(skipped))
    except Odd as odd:
        return Check(title, "warn", _encodable(odd))
    except (Broken, PalaestraError) as broken:
        return Check(title, "fail", _encodable(broken))
    except Exception as error:
        return Check(title, "fail", f"raised {type(error).__name__}: {_encodable(error)}")
    return Check(title, "pass", found or "")


def _encodable(error: Exception) -> str:
    """Its text; half of a surrogate pair, which no file and no terminal takes, becomes a question mark."""
    return str(error).encode(errors="replace").decode()


def _missing(checks: Sequence[Check]) -> str:
    """The extra that `make` asked for; from another process its error comes as text."""
    found = next((re.search(_EXTRA, c.reason) for c in checks if c.name == "make" and c.outcome == "fail"), None)
    return found.group(1) if found else ""


async def _grade(probe: Probe, episodes: Sequence[Episode]) -> Grade:
    """Play every episode again, with the same actions in a new instance; another process has done so already."""
    grades: set[Grade] = set()
    if probe.other_link is not None:
        grades.add("seeded" if probe.other_link else "noisy")
    for episode in episodes:
        try:
            again = await probe.again(episode)
        except Exception:  # what worked before does not work now
            grades.add("noisy")
            continue
        seeded: Grade = "seeded" if again.links[0] == episode.links[0] else "noisy"
        grades.add("exact" if again.links == episode.links else seeded)
    return max(grades, key=("exact", "seeded", "noisy").index)
