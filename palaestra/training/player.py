"""The player: the agent that is being trained, as training and evaluation let it play."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from palaestra.agents.actions import ActionFormat, ChoiceAction, TextAction
from palaestra.agents.agent import Agent
from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import ContextPolicy, FullContext, WindowContext
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.language import LanguageAgent, TokenLimits
from palaestra.agents.models import LoadedModel
from palaestra.agents.rollout import Episode, RolloutLimits, rollout
from palaestra.config import AgentConfig, Recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import TrainingError
from palaestra.evaluation.evaluate import Progress, evaluate
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.record import Trajectory


class Player:
    """Plays episodes with the model's present weights.

    Every call has a fresh engine around the shared model. So weights never have to be copied, and what is sampled
    depends on weights and seeds only, not on what was played before: a resumed run plays what it would have played.
    """

    def __init__(self, recipe: Recipe, loaded: LoadedModel) -> None:
        self.recipe, self.loaded = recipe, loaded
        self.chat = ChatFormat.from_tokenizer(loaded.tokenizer)
        self.actions, self.context = _actions(recipe.agent), _context(recipe.agent)

    async def play(self, episodes: Sequence[Episode], version: int) -> list[Trajectory]:
        """One trajectory per episode; `version` is noted on what the policy samples."""
        async with self._agent(len(episodes), self.recipe.agent.temperature, version) as agent:
            return await rollout(episodes, agent, make, self.limits)

    async def evaluate(
        self,
        suite: TaskSuite,
        episodes: int,
        *,
        name: str,
        version: int = 0,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> EvalResult:
        """Play a suite at the evaluation's temperature; `name` is what the result calls the suite.

        Raises:
            TrainingError: not one episode could be played; that is no success rate of 0.
        """
        temperature = self.recipe.evaluation.temperature
        temperature = self.recipe.agent.temperature if temperature is None else temperature
        errors: list[str] = []

        def watch(done: int, total: int, latest: Trajectory | None) -> None:
            if latest is not None and latest.error:
                errors.append(latest.error)
            if progress:
                progress(done, total, latest)

        async with self._agent(episodes, temperature, version) as agent:
            result = await self.evaluate_agent(agent, suite, episodes, name=name, store=store, progress=watch)
        if len(errors) == result.n:
            raise TrainingError(f"no episode of {name} can be played: {errors[0]}")
        return result

    async def evaluate_agent(
        self,
        agent: Agent,
        suite: TaskSuite,
        episodes: int,
        *,
        name: str,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> EvalResult:
        """Let any agent play as this one does: the same tasks, seeds and limits."""
        return await evaluate(
            suite,
            agent,
            episodes=episodes,
            name=name,
            seed=self.recipe.seed,
            limits=self.limits,
            temperature=agent.temperature if isinstance(agent, LanguageAgent) else None,
            store=store,
            progress=progress,
        )

    @property
    def limits(self) -> RolloutLimits:
        """Of the recipe."""
        config = self.recipe.rollout
        return RolloutLimits(
            max_turns=self.recipe.tasks.max_turns,
            concurrency=config.concurrency,
            retries=config.retries,
            reset_seconds=config.reset_seconds,
            act_seconds=config.act_seconds,
            step_seconds=config.step_seconds,
        )

    @asynccontextmanager
    async def _agent(self, episodes: int, temperature: float, version: int) -> AsyncIterator[LanguageAgent]:
        config = self.recipe.agent
        engine = TorchEngine(self.loaded.model, slots=max(1, min(episodes, self.recipe.rollout.concurrency)))
        try:
            await engine.update_weights({}, version)
            yield LanguageAgent(
                engine=engine,
                chat=self.chat,
                actions=self.actions,
                context=self.context,
                limits=TokenLimits(max_tokens=config.max_tokens),
                temperature=temperature,
                system=config.system or None,
                name=self.recipe.name,
            )
        finally:
            await engine.close()


def _actions(config: AgentConfig) -> ActionFormat:
    return ChoiceAction() if config.action == "choice" else TextAction()


def _context(config: AgentConfig) -> ContextPolicy:
    return WindowContext(config.window_turns) if config.context == "window" else FullContext()
