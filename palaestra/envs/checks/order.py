"""Calls out of order, and actions that make no sense."""

from __future__ import annotations

from typing import Any

from palaestra.envs.checks.probe import Broken, Probe
from palaestra.envs.episode import NONSENSE, play
from palaestra.errors import DeadlineError, EnvError, WorkerError

STRANGE = (NONSENSE, "", "look " * 2000, "\x00\n\t")
"""What agents that are still learning write."""


async def ordering(probe: Probe) -> None:
    """`step` is refused before `reset` and after the end."""
    action = (await probe.episode(probe.seeds[0])).actions[0]
    async with probe.open() as env:
        await _refused(env, action, "before reset")
    for episode in await probe.episodes():
        if episode.ended:
            async with probe.open() as env:
                again = await play(env, episode.seed, episode.actions, len(episode.actions))
                if again.ended:
                    await _refused(env, action, "after the end of the episode")
            return


async def _refused(env: Any, action: Any, when: str) -> None:
    try:
        await env.step(action)
    except (DeadlineError, WorkerError):
        raise
    except EnvError:
        return
    raise Broken(f"step {when} is not refused; raise EnvError")


async def answering(probe: Probe) -> None:
    """An action that makes no sense is answered, not raised."""
    await probe.writes_text()
    for action in STRANGE:
        async with probe.open() as env:
            try:
                await play(env, probe.seeds[0], [action], 1)
            except Exception as error:
                shown = action if len(action) < 20 else f"{action[:16]}..."
                raise Broken(
                    f"the command {shown!r} raised {error!r}; answer what makes no sense and set info['invalid']"
                ) from error


async def closing(probe: Probe) -> None:
    """`close` may be called without `reset`, and twice."""
    env = await probe.made()
    await env.close()
    env = await probe.made()
    await play(env, probe.seeds[0], probe.actions, 1)
    await env.close()
    await env.close()
