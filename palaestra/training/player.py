"""The player: the agent that is being trained, as training and evaluation let it play.

`Player` is what a trainer knows of it; `InProcessPlayer` plays in this process, with the learner's own model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from palaestra.agents.agent import Agent
from palaestra.agents.chat import ChatFormat
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.language import LanguageAgent
from palaestra.agents.models import LoadedModel
from palaestra.agents.opening import evaluation_settings, language_agent, limits_of
from palaestra.agents.planner import Planner
from palaestra.agents.rollout import EnvMaker, Episode, RolloutLimits, rollout
from palaestra.config import AgentConfig, Recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import TaskSuite
from palaestra.errors import TrainingError
from palaestra.evaluation.evaluate import Progress, evaluate
from palaestra.evaluation.result import EvalResult
from palaestra.training.checkpoint import fingerprint
from palaestra.trajectories.record import Trajectory


class Plays(Protocol):
    """Plays episodes. What one samples depends on the weights and its own seeds only, wherever it is played."""

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        """One trajectory per episode, in their order; a failing episode is a status, never an exception.

        Args:
            episodes: what to play; whole groups.
            version: of the weights: noted on what the policy samples.
            planner: plays each group as a whole; `None` plays every episode by itself.
        """


class Player(Plays, Protocol):
    """Plays for training and for evaluation."""

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
        """Play a suite with the learner's present weights, at the evaluation's temperature.

        Args:
            suite: the tasks.
            episodes: how many of them, from the front.
            name: what the result calls the suite.
            version: of the weights.
            store: keeps the episodes; what is in it already is not played again.
            progress: told of every episode.

        Raises:
            TrainingError: not one episode could be played; that is no success rate of 0.
        """

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

    async def close(self) -> None:
        """Give back what it holds; may be called more than once."""


OpenPlayer = Callable[[Recipe, LoadedModel], Player]
"""Makes the player of a run, around the model that its learner trains."""


class InProcessPlayer:
    """Plays episodes with the model's present weights, in this process.

    Every call has a fresh engine around the shared model. So weights never have to be copied, and what is sampled
    depends on weights and seeds only, not on what was played before: a resumed run plays what it would have played.
    """

    def __init__(self, recipe: Recipe, loaded: LoadedModel) -> None:
        self.recipe, self.loaded = recipe, loaded
        self.chat = ChatFormat.from_tokenizer(loaded.tokenizer)
        self.limits = limits_of(recipe)

    async def play(self, episodes: Sequence[Episode], version: int, planner: Planner | None = None) -> list[Trajectory]:
        """As `Player.play`."""
        async with self._agent(len(episodes), self.recipe.agent, version) as agent:
            return await self.play_with(agent, episodes, planner)

    async def play_with(
        self, agent: Agent, episodes: Sequence[Episode], planner: Planner | None = None
    ) -> list[Trajectory]:
        """Let any agent play the run's episodes, where this player plays them and within its limits."""
        return await self._rollout(episodes, agent, make, self.limits, planner=planner)

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
        """As `Player.evaluate`."""
        errors: list[str] = []

        def watch(done: int, total: int, latest: Trajectory | None) -> None:
            if latest is not None and latest.error:
                errors.append(latest.error)
            if progress:
                progress(done, total, latest)

        weights = fingerprint(self.loaded.model) if store else ""
        async with self._agent(episodes, evaluation_settings(self.recipe), version, weights) as agent:
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
        """As `Player.evaluate_agent`."""
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
            play=self._rollout,
        )

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _rollout(
        self,
        episodes: Sequence[Episode],
        agent: Agent,
        make_env: EnvMaker,
        limits: RolloutLimits,
        *,
        planner: Planner | None = None,
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        """As `rollout`; a subclass may let others play."""
        return await rollout(episodes, agent, make_env, limits, planner=planner, on_done=on_done)

    @asynccontextmanager
    async def _agent(
        self, episodes: int, settings: AgentConfig, version: int, weights: str = ""
    ) -> AsyncIterator[LanguageAgent]:
        slots = max(1, min(episodes, self.recipe.rollout.concurrency))
        engine = TorchEngine(self.loaded.model, slots=slots, compiled=self.recipe.engine.compile)
        try:
            await engine.update_weights({}, version)
            yield language_agent(
                self.loaded, settings, engine=engine, chat=self.chat, name=self.recipe.name, weights=weights
            )
        finally:
            await engine.close()
