"""Demonstrations: one solved episode of a task, in the tokens of the policy.

They come from a file of trajectories, of whatever agent, or from the environment's own oracle. Either way the actions
are played once, by a `Demonstrator`, when an update first wants the task; what came of it stays in the run directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from palaestra.agents.attempt import together
from palaestra.agents.demonstrator import Demonstrator
from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.language import LanguageAgent
from palaestra.agents.opening import language_agent, limits_of
from palaestra.agents.rollout import Episode, play
from palaestra.envs.registry import make
from palaestra.envs.tasks import Task
from palaestra.errors import ConfigError, TrainingError
from palaestra.training.providers import Run
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import TrajectoryWriter, read_trajectories

FILE = "demonstrations.ptj"
"""In the run directory."""
Key = tuple[str, str, int | None]
"""Split, name and seed of a task."""


@dataclass(slots=True)
class Demonstrations:
    """Those of a run, by task."""

    source: str = ""
    """A `.ptj` file of solved episodes; empty for oracles alone."""
    key: str = "demonstrations"
    """Where the recipe names it, for messages."""
    recorded: dict[Key, list[str]] = field(default_factory=dict)
    """The fewest actions that solve a task, from `source`."""
    known: dict[Key, Trajectory] = field(default_factory=dict)
    """Played."""
    run: Run | None = None

    def check(self) -> None:
        """Raises:
        ConfigError: there is no such file.
        """
        if self.source and not Path(self.source).expanduser().is_file():
            raise ConfigError(f"{self.key}: there is no file {self.source}; give a .ptj file of solved episodes")

    def attach(self, run: Run) -> None:
        """Read the file, and what a run that is resumed has played before.

        Raises:
            DataError: a file is damaged.
            ConfigError: it holds no solved episode.
        """
        self.run = run
        if self.source:
            for each in read_trajectories(Path(self.source).expanduser()):
                self._record(each)
            if not self.recorded:
                raise ConfigError(f"{self.key}: {self.source} holds no solved episode")
        if (cache := run.directory / FILE).is_file():
            self.known = {key_of(each): each for each in read_trajectories(cache)}

    def of(self, trajectory: Trajectory) -> Trajectory | None:
        """The demonstration of a trajectory's task; `None` where it was never fetched."""
        return self.known.get(key_of(trajectory))

    async def fetch(self, trajectories: Iterable[Trajectory]) -> None:
        """Make sure that the tasks of these have one.

        Raises:
            TrainingError: a task has none, or what it has does not solve it.
        """
        missing = {key_of(each): each for each in trajectories if key_of(each) not in self.known}
        if not missing:
            return
        assert self.run is not None
        engine = TorchEngine(self.run.loaded.model, slots=1)  # asked for its window only
        try:
            policy = language_agent(self.run.loaded, self.run.recipe.agent, engine=engine, chat=self.run.chat)
            played = await together([self._played(key, each, policy) for key, each in missing.items()])
        finally:
            await engine.close()
        with TrajectoryWriter(self.run.directory / FILE) as cache:
            for key, each in zip(missing, played, strict=True):
                self.known[key] = each
                cache.append(each)

    def _record(self, trajectory: Trajectory) -> None:
        actions = [step.action for step in trajectory.steps]
        before = self.recorded.get(key_of(trajectory))
        if trajectory.success and trajectory.status == "ok" and (before is None or len(actions) < len(before)):
            self.recorded[key_of(trajectory)] = actions

    async def _played(self, key: Key, like: Trajectory, policy: LanguageAgent) -> Trajectory:
        assert self.run is not None
        recipe, actions = self.run.recipe, self.recorded.get(key)
        if actions == []:
            raise TrainingError(f"{self.key}: the episode of task {like.task!r} in {self.source} has no action")
        task = Task(
            env=like.env,
            name=like.task,
            split=like.split,
            seed=like.task_seed or 0,
            params=like.params,
            kind=like.kind,
        )
        engine = TorchEngine(self.run.loaded.model, slots=1)  # asked for its window only
        policy = language_agent(self.run.loaded, recipe.agent, engine=engine, chat=self.run.chat)
        episode = Episode(task=task, id=f"demonstration of {like.split} {like.task} {like.task_seed}", seed=recipe.seed)
        found = await play(episode, Demonstrator(policy, actions), make, limits_of(recipe))
        await engine.close()
        if not found.success or found.status != "ok":
            raise TrainingError(self._why(found, actions))
        return msgspec.structs.replace(found, env=like.env)

    def _why(self, found: Trajectory, actions: Sequence[str] | None) -> str:
        whose = f"the oracle of {found.env}" if actions is None else f"the episode in {self.source}"
        reason = found.error or f"it ended unsolved ({found.status}, {len(found.steps)} actions)"
        others = f"{self.key} may name a .ptj file with an episode that solves it"
        return f"task {found.task!r} has no demonstration: {whose} does not give one: {reason}; {others}"


def key_of(trajectory: Trajectory) -> Key:
    """Of its task."""
    return trajectory.split, trajectory.task, trajectory.task_seed
