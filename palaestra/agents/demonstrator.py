"""A demonstrator: does what an expert says, and writes it down as the policy would have written it.

Its episodes have the policy's tokens, contexts and choices, so that a learner can train on them as on the policy's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palaestra.agents.agent import Decision
from palaestra.agents.engines.scripted import ScriptedEngine
from palaestra.agents.language import LanguageAgent, LanguageSession
from palaestra.agents.scripted import OracleAgent, OracleSession, ScriptedAgent, ScriptedSession
from palaestra.envs.core import Env, Info
from palaestra.trajectories.record import Node


@dataclass(frozen=True)
class Demonstrator:
    """Plays recorded actions, or what the environment's own expert says."""

    policy: LanguageAgent
    """Whose conversations it writes. Its engine only says how much context there is."""
    actions: Sequence[str] | None = None
    """From the episode's beginning to its end; `None` asks the environment's oracle."""
    name: str = "demonstrator"

    def session(self, *, seed: int, env: Env[Any, Any] | None = None) -> DemonstratorSession:
        """Begin an episode.

        Raises:
            EnvError: the environment has no expert, and there are no recorded actions.
        """
        expert = OracleAgent() if self.actions is None else ScriptedAgent(self.actions)
        return DemonstratorSession(self.policy, expert.session(seed=seed, env=env), seed)


class DemonstratorSession:
    """An expert and the policy's conversation."""

    def __init__(self, policy: LanguageAgent, expert: OracleSession | ScriptedSession, seed: int) -> None:
        self._expert, self._chat, self._next = expert, policy.chat, list[int]()
        engine = ScriptedEngine(lambda request: self._next, context_length=policy.engine.context_length)
        self._conversation: LanguageSession = policy.with_(engine=engine).session(seed=seed)

    @property
    def nodes(self) -> list[Node]:
        """Those of the conversation; log-probs and entropies are 0."""
        return self._conversation.nodes

    async def act(self, observation: str, info: Info) -> Decision:
        """The expert's action as the policy's completion.

        Raises:
            EnvError: the expert does not know, or the recorded actions are over.
            EngineError: the policy could not choose that action.
        """
        action = (await self._expert.act(observation, info)).text
        self._next = self._chat.completion(action)
        return await self._conversation.act(observation, info)

    async def close(self) -> None:
        """Nothing to release but the conversation."""
        await self._conversation.close()
