"""One episode, as verifiers' own `run_episode` has it, but with our agent."""

from __future__ import annotations

from typing import Any

from verifiers.v1.agent import Agents
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.episode import EnvInfo, Episode
from verifiers.v1.trace import TraceTask

from palaestra.envs.verifiers.seat import Desk, Seat


async def play(env: Any, row: Any, desk: Desk, traces: list[Any], agent: str, local_runtime: bool) -> None:
    """Play `row` to its end; the graded conversations come to stand in `traces`.

    Raises:
        Exception: whatever the code of the taskset raises.
    """
    names = list(agent_config_fields(env.config))
    if not agent and len(names) > 1:
        raise ValueError(f"it has several agents; say by agent= which is played: {', '.join(names)}")
    if agent and agent not in names:
        raise ValueError(f"it has no agent {agent!r}; it has {', '.join(names)}")
    ours = agent or names[0]

    def seat(name: str, config: Any) -> Any:
        return Seat(name, config, desk if name == ours else None, traces, local_runtime)

    agents = Agents(env.config, seat)
    await env.setup(agents)
    await env.run(row, agents)
    episode: Any = Episode(
        env=EnvInfo(id=env.config.env_id),
        task=TraceTask(type=type(row).__name__, data=row.data, key=row.key, hash=row.hash),
    )
    episode.traces, episode.ok = traces, True
    await env.finalize(row, episode)
