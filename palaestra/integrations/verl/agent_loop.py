"""Our episodes as verl's agent loop: the recipe's agent plays on verl's inference servers."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from palaestra.agents.actions import FORMATS
from palaestra.agents.chat import ChatFormat
from palaestra.agents.context import FullContext
from palaestra.agents.language import LanguageAgent, TokenLimits
from palaestra.agents.opening import limits_of
from palaestra.agents.rollout import Episode, rollout
from palaestra.config import Recipe
from palaestra.envs.registry import make
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError
from palaestra.integrations.layout import Layout
from palaestra.integrations.objective import require_one_row
from palaestra.integrations.verl.engine import ServerEngine
from palaestra.integrations.verl.recipe import recipe_of
from palaestra.training.rows import build_rows
from palaestra.trajectories.record import Trajectory
from palaestra.trajectories.store import encoded


@register("palaestra")
class PalaestraAgentLoop(AgentLoopBase):  # type: ignore[misc]  # verl is installed in its own environment only
    """One episode. The whole record goes along as `trajectory`, for the trainer's credit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recipe = recipe_of(self.config)
        if self.recipe.agent.context != "full":
            raise ConfigError("verl takes an episode as one row: use agent.context: full")
        self._prompt = int(self.rollout_config.prompt_length)
        self._response = int(self.rollout_config.response_length)
        if self._response < self.recipe.agent.max_tokens:
            raise ConfigError(
                f"data.max_response_length is {self._response}, and a completion alone may have "
                f"{self.recipe.agent.max_tokens} tokens (agent.max_tokens)"
            )

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """Play a task of the recipe's suite. An episode that verl has no room for ends as `overflow`.

        Args:
            sampling_params: verl's; the temperature is taken from it.
            kwargs: of the data row: `extra_info` with the task's place and split; `uid`, `session_id`, `global_steps`.
        """
        recipe, extra = self.recipe, kwargs["extra_info"]
        tasks = recipe.tasks
        suite = load_suite(getattr(tasks, str(extra.get("split", "train"))), **tasks.params)
        step = int(kwargs.get("global_steps", 0) or 0)
        uid, session = str(kwargs.get("uid", extra["index"])), int(kwargs.get("session_id", 0))
        episode = Episode(
            task=suite[int(extra["index"])], id=f"{step}/{uid}/{session}", group=f"{step}/{uid}", seed=recipe.seed
        )
        agent = self._agent(float(sampling_params.get("temperature", recipe.agent.temperature)), step)
        (trajectory,) = await rollout([episode], agent, make, limits_of(recipe))
        return as_output(trajectory, recipe, step=step, filler=int(self.tokenizer.pad_token_id or 0))

    def _agent(self, temperature: float, version: int) -> LanguageAgent:
        settings = self.recipe.agent
        room = {"prompt": self._prompt, "response": self._response, "completion": settings.max_tokens}
        return LanguageAgent(
            engine=ServerEngine(self.server_manager, **room, version=version),
            chat=ChatFormat.from_tokenizer(self.tokenizer),
            actions=FORMATS[settings.action](),
            context=FullContext(),
            limits=TokenLimits(max_tokens=settings.max_tokens),
            temperature=temperature,
            system=settings.system or None,
            name=self.recipe.name,
        )


def as_output(trajectory: Trajectory, recipe: Recipe, *, step: int, filler: int) -> Any:
    """verl's record of an episode.

    Args:
        trajectory: of one row.
        recipe: as it was played.
        step: verl's global step.
        filler: token of an episode that nothing is learned from.
    """
    rows = build_rows([trajectory], temperature=recipe.agent.temperature)
    require_one_row(rows.batch)
    layout = Layout.of(rows.batch, [trajectory.id], [each.id for each in rows.trajectories])
    columns = {name: values[0] for name, values in layout.rollout(filler).items()}
    return AgentLoopOutput(
        prompt_ids=columns["prompt_ids"],
        response_ids=columns["completion_ids"],
        response_mask=columns["env_mask"],
        response_logprobs=columns["logprobs"],
        reward_score=trajectory.total_reward,
        num_turns=2 * len(trajectory.steps),
        metrics=AgentLoopMetrics(),
        extra_fields={
            "trajectory": encoded(trajectory),
            "min_global_steps": step,
            "max_global_steps": step,
            "reward_extra_info": {"success": float(trajectory.success)},
        },
    )
