"""How episodes end: `terminated` by the task, `truncated` by a limit outside it, and in step with `success`."""

from __future__ import annotations

from collections.abc import Sequence

from palaestra.envs.checks.probe import Odd, Probe, Skipped, require
from palaestra.envs.deadline import Timed
from palaestra.envs.episode import Episode, play
from palaestra.envs.registry import make

_LIMIT = 2
"""Steps of the time limit that is tried out."""
_SUSPICIOUS = 3
"""Failed episodes that all end after the same number of steps, from which on chance is no explanation."""


async def flagging(probe: Probe) -> None:
    """`terminated` and `truncated` are bools."""
    for episode in await probe.episodes():
        for step in episode.steps:
            for name in ("terminated", "truncated"):
                flag = getattr(step, name)
                require(isinstance(flag, bool), f"{name} is a {type(flag).__name__}; return bool({name})")


async def limiting(probe: Probe) -> None:
    """A time limit truncates an episode; it does not terminate it."""
    for episode in await probe.episodes():
        _truncated_by(probe.spec.max_episode_steps if probe.spec else None, episode)
    await _try_a_limit(probe)


def _truncated_by(limit: int | None, episode: Episode) -> None:
    if limit is None or len(episode.steps) < limit:
        return
    require(len(episode.steps) == limit, f"an episode went on for {len(episode.steps)} steps beyond its limit {limit}")
    require(bool(episode.steps[-1].truncated), f"step {limit} reached max_episode_steps but is not truncated")


async def _try_a_limit(probe: Probe) -> None:
    """A limit that was not there before changes `truncated` only."""
    episode = await probe.episode(probe.seeds[0])
    if probe.spec is None or len(episode.steps) < _LIMIT or not await probe.repeats():
        return
    env = Timed(make(probe.spec, max_episode_steps=_LIMIT), probe.watch)
    try:
        short = await play(env, episode.seed, episode.actions, _LIMIT)
    finally:
        await env.close()
    last, before = short.steps[-1], episode.steps[len(short.steps) - 1]
    require(bool(last.truncated), f"under a limit of {_LIMIT} steps, step {_LIMIT} is not truncated")
    require(last.terminated == before.terminated, "a time limit terminates the episode; set truncated instead")


async def agreeing(probe: Probe) -> None:
    """An episode that is solved terminates, and no limit of the environment's own poses as `terminated`."""
    played = [*await probe.episodes(), *(w.episode for w in await probe.wandering())]
    if not any("success" in info for episode in played for info in episode.infos if isinstance(info, dict)):
        raise Skipped("no info has success")
    for episode in played:
        last = episode.steps[-1] if episode.steps else None
        cut_off = last is not None and last.truncated and not last.terminated
        require(
            not (cut_off and episode.solved),
            "an episode ends with success, but as truncated; a solved task is terminated",
        )
    _look_for_a_hidden_limit(played)


def _look_for_a_hidden_limit(played: Sequence[Episode]) -> None:
    failed = [e for e in played if e.steps and e.steps[-1].terminated and not e.solved]
    lengths = {len(episode.steps) for episode in failed}
    if len(failed) >= _SUSPICIOUS and len(lengths) == 1 and lengths != {1}:
        raise Odd(
            f"all {len(failed)} failed episodes are terminated after exactly {lengths.pop()} steps; "
            "if that is a limit, set truncated instead (max_episode_steps does)"
        )
