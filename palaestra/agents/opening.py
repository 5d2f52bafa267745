"""Agents by reference: `random`, `oracle`, a run directory, a model, or a model behind an endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from palaestra.agents.agent import Agent
from palaestra.agents.engines.openai.address import PREFIX, is_api
from palaestra.agents.rollout import RolloutLimits
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.config import AgentConfig, Recipe, load_recipe
from palaestra.errors import UnknownNameError, require

if TYPE_CHECKING:
    from palaestra.agents.api.settings import ApiSettings
    from palaestra.agents.chat import ChatFormat
    from palaestra.agents.engines.base import Engine
    from palaestra.agents.language import LanguageAgent
    from palaestra.agents.models import LoadedModel

PLAIN: dict[str, type[RandomAgent] | type[OracleAgent]] = {"random": RandomAgent, "oracle": OracleAgent}
"""Agents that need no model."""


def recipe_of(reference: str) -> Recipe | None:
    """The recipe of a run directory; `None` for any other agent.

    Raises:
        ConfigError: it does not fit.
    """
    recipe = Path(reference).expanduser() / "recipe.yaml"
    return load_recipe(recipe) if recipe.is_file() else None


def settings_of(reference: str) -> AgentConfig:
    """How the model at `reference` is played: as its run's own evaluations play it if it is a run directory, else the
    defaults.

    Raises:
        ConfigError: the run's recipe does not fit.
    """
    recipe = recipe_of(reference)
    return AgentConfig() if recipe is None else evaluation_settings(recipe)


def evaluation_settings(recipe: Recipe) -> AgentConfig:
    """How evaluations of a run play: as training does, at a temperature of their own if the recipe has one."""
    temperature = recipe.evaluation.temperature
    return recipe.agent if temperature is None else msgspec.structs.replace(recipe.agent, temperature=temperature)


def limits_of(recipe: Recipe) -> RolloutLimits:
    """How long and how often a run plays."""
    config = recipe.rollout
    return RolloutLimits(
        max_turns=recipe.tasks.max_turns,
        concurrency=config.concurrency,
        retries=config.retries,
        reset_seconds=config.reset_seconds,
        act_seconds=config.act_seconds,
        step_seconds=config.step_seconds,
    )


@asynccontextmanager
async def open_agent(
    reference: str,
    settings: AgentConfig | None = None,
    *,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    slots: int = 64,
    device: str | None = None,
    endpoint: ApiSettings | None = None,
) -> AsyncIterator[Agent]:
    """`load_agent`'s agent, closed at the end of the block; arguments and errors are the same."""
    agent = load_agent(
        reference,
        settings,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        slots=slots,
        device=device,
        endpoint=endpoint,
    )
    async with closing(agent):
        yield agent


@asynccontextmanager
async def closing(agent: Agent) -> AsyncIterator[None]:
    """Close the agent's engine, if it has one, at the end of the block."""
    try:
        yield
    finally:
        if engine := getattr(agent, "engine", None):
            await engine.close()


def load_agent(
    reference: str,
    settings: AgentConfig | None = None,
    *,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    slots: int = 64,
    device: str | None = None,
    endpoint: ApiSettings | None = None,
) -> Agent:
    """An agent; whoever calls closes it (`closing`).

    Args:
        reference: `random`, `oracle`, a run directory, `palaestra-tiny`, a model directory, a GGUF file, or
            `openai:MODEL@URL`.
        settings: how a model plays; `settings_of(reference)` if not given.
        temperature: instead of that in `settings`; 0 takes the likeliest token.
        top_k: as `SamplingParams.top_k`.
        top_p: as `SamplingParams.top_p`.
        slots: episodes that the engine computes at once.
        device: torch device of a model; its run's, or the CPU, if not given.
        endpoint: all settings of `openai:MODEL@URL`, for which the others, apart from `temperature`, do not count.

    Raises:
        UnknownNameError: there is no such agent.
        CheckpointError: the model cannot be loaded.
        ConfigError: the run's recipe does not fit, or the device is not there.
        MissingExtraError: a model needs the extra `train` (a GGUF file also `gguf`), and it is not installed.
    """
    if reference in PLAIN:
        return PLAIN[reference]()
    if is_api(reference):
        return _behind_endpoint(reference, endpoint, temperature)
    from palaestra.agents.fingerprint import weights_fingerprint
    from palaestra.agents.models import SHIPPED, load_model, resolve_model
    from palaestra.config import ModelConfig

    if reference not in SHIPPED and not Path(reference).expanduser().exists():
        raise UnknownNameError("agent", reference, [*PLAIN, *SHIPPED, f"{PREFIX}MODEL@URL"])
    recipe = recipe_of(reference)
    config = ModelConfig() if recipe is None else recipe.model
    loaded = load_model(reference, dtype=config.dtype, device=device or config.device)
    weights = weights_fingerprint(resolve_model(reference)[0], config.dtype)
    agent = language_agent(loaded, settings or settings_of(reference), slots=slots, weights=weights)
    changes = {} if temperature is None else {"temperature": temperature}
    return agent.with_(top_k=top_k, top_p=top_p, **changes)


def _behind_endpoint(reference: str, endpoint: ApiSettings | None, temperature: float | None) -> Agent:
    require("aiohttp", "openai")
    from palaestra.agents.api.opening import load_api_agent
    from palaestra.agents.api.settings import ApiSettings

    settings = endpoint or ApiSettings()
    return load_api_agent(reference, settings if temperature is None else replace(settings, temperature=temperature))


def language_agent(
    loaded: LoadedModel,
    settings: AgentConfig,
    *,
    slots: int = 64,
    engine: Engine | None = None,
    chat: ChatFormat | None = None,
    name: str = "",
    weights: str = "",
) -> LanguageAgent:
    """An agent around a loaded model.

    Args:
        loaded: model and tokenizer.
        settings: how it plays.
        slots: episodes that an engine of its own computes at once.
        engine: who computes, instead of such an engine.
        chat: the chat format, if it is known already.
        name: under which trajectories and evaluations report it; the model's if not given.
        weights: their fingerprint.
    """
    from palaestra.agents.actions import FORMATS
    from palaestra.agents.chat import ChatFormat
    from palaestra.agents.context import FullContext, WindowContext
    from palaestra.agents.engines.torch_engine import TorchEngine
    from palaestra.agents.language import LanguageAgent, TokenLimits

    return LanguageAgent(
        engine=engine or TorchEngine(loaded.model, slots=slots),
        chat=chat or ChatFormat.from_tokenizer(loaded.tokenizer),
        actions=FORMATS[settings.action](),
        context=WindowContext(settings.window_turns) if settings.context == "window" else FullContext(),
        limits=TokenLimits(max_tokens=settings.max_tokens),
        temperature=settings.temperature,
        system=settings.system or None,
        name=name or loaded.name,
        weights=weights,
    )
