"""The oracle: it solves every task, and asking it changes nothing."""

from __future__ import annotations

from palaestra.envs.checks.probe import Odd, Probe, Skipped, require
from palaestra.envs.episode import Episode, advance, play

ORACLE_STEPS = 500
"""Most steps in which an oracle may solve a task."""


async def advising(probe: Probe) -> None:
    """The oracle solves the task of every seed, and the episode then terminates."""
    for seed in probe.seeds:
        async with probe.open() as env:
            if not hasattr(env, "oracle"):
                raise Skipped("it has no oracle")
            episode = await play(env, seed, probe.actions, 0)
            while not episode.ended and len(episode.steps) < ORACLE_STEPS:
                await advance(env, episode, await env.oracle())
            graded = hasattr(env, "verify") and (await env.verify()).success
        require(episode.solved or graded, f"the oracle did not solve seed {seed} in {len(episode.steps)} steps")
        if _goes_on(episode) and not graded:
            raise Odd("the oracle solves the task, but the episode goes on; set terminated when the task is solved")


def _goes_on(episode: Episode) -> bool:
    """Whether a step says success but does not end the episode."""
    return any(step.info.get("success") and not (step.terminated or step.truncated) for step in episode.steps)


async def advising_purely(probe: Probe) -> None:
    """Asking the oracle changes nothing."""
    for episode in await probe.episodes():
        async with probe.open() as env:
            if not hasattr(env, "oracle"):
                raise Skipped("it has no oracle")
            again = await play(env, episode.seed, probe.actions, 0)
            if again.links != episode.links[:1]:
                raise Skipped("its episodes cannot be repeated")
            for action in episode.actions:
                advice = await env.oracle()
                require(await env.oracle() == advice, "the oracle, asked twice, gives two answers")
                await advance(env, again, action)
        quiet = await probe.again(episode)
        if quiet.links == episode.links:
            require(again.links == quiet.links, "asking the oracle changes the episode")
