"""Agents that know nothing: what they get says whether a reward means anything."""

from __future__ import annotations

import math
from collections.abc import Sequence

from palaestra.envs.checks.probe import Baseline, Odd, Probe, require
from palaestra.envs.core import Verdict
from palaestra.envs.episode import NONSENSE, Episode, play

RANDOM_SUCCESS = 0.5
"""Share of tasks from which on a random agent solves suspiciously many."""
_BLIND_STEPS = 5
"""Steps of an agent that says the same over and over."""


async def random_agent(probe: Probe) -> str:
    """An agent that takes any command fails more often than not."""
    results = [_outcome(wandered.episode, wandered.verdict) for wandered in await probe.wandering()]
    baseline = _remember(probe, "random", results)
    if baseline.success > RANDOM_SUCCESS:
        raise Odd(f"{baseline}: an agent has little to learn here{await _unsure(probe)}")
    return str(baseline)


async def empty_agent(probe: Probe) -> str:
    """An agent that says nothing, or gives up at once, earns nothing."""
    await probe.writes_text()
    given = await _give_up(probe)
    baseline = await _always(probe, "empty", "")
    _never_paid(baseline, "no text at all")
    if given > 0:
        raise Odd(f"verify pays {given:g} to an agent that does nothing")
    return str(baseline)


async def nonsense_agent(probe: Probe) -> str:
    """An agent whose text means nothing earns nothing."""
    await probe.writes_text()
    baseline = await _always(probe, "nonsense", NONSENSE)
    _never_paid(baseline, f"the text {NONSENSE!r}")
    return str(baseline)


def _never_paid(baseline: Baseline, whom: str) -> None:
    if baseline.reward > 0 or baseline.success > 0:
        raise Odd(f"{baseline}: {whom} is rewarded")


async def _always(probe: Probe, name: str, text: str) -> Baseline:
    """Say `text` whatever comes."""
    results = []
    for seed in probe.seeds:
        async with probe.open() as env:
            episode = await play(env, seed, [text], _BLIND_STEPS)
            results.append(_outcome(episode, await env.verify() if hasattr(env, "verify") else None))
    return _remember(probe, name, results)


def _outcome(episode: Episode, verdict: Verdict | None) -> tuple[float, bool]:
    """Sum of rewards, and whether the task is solved."""
    if verdict is None:
        return episode.total, episode.solved
    require(math.isfinite(verdict.reward), f"verify gives the reward {verdict.reward}; it must be finite")
    return episode.total + float(verdict.reward), bool(verdict.success)


def _remember(probe: Probe, name: str, results: Sequence[tuple[float, bool]]) -> Baseline:
    n = len(results)
    baseline = Baseline(name, n, sum(reward for reward, _ in results) / n, sum(solved for _, solved in results) / n)
    probe.baselines.append(baseline)
    return baseline


async def _give_up(probe: Probe) -> float:
    """What grading pays for the untouched state; 0 where nothing grades."""
    async with probe.open() as env:
        if not hasattr(env, "verify"):
            return 0.0
        await env.reset(seed=probe.seeds[0])
        return float((await env.verify()).reward)


async def _unsure(probe: Probe) -> str:
    """What to do where success is only guessed."""
    infos = [info for wandered in await probe.wandering() for info in wandered.episode.infos]
    if any("success" in info for info in infos if isinstance(info, dict)):
        return ""
    return " (no info has success, so a positive sum of rewards counts as one; set info['success'])"
