"""Agents by reference: `random`, `oracle`, a run directory, or a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from palaestra.agents.agent import Agent
from palaestra.agents.scripted import OracleAgent, RandomAgent
from palaestra.config import AgentConfig, load_recipe
from palaestra.errors import UnknownNameError

if TYPE_CHECKING:
    from palaestra.agents.language import LanguageAgent
    from palaestra.agents.models import LoadedModel

PLAIN: dict[str, type[RandomAgent] | type[OracleAgent]] = {"random": RandomAgent, "oracle": OracleAgent}
"""Agents that need no model."""


def settings_of(reference: str) -> AgentConfig:
    """How the model at `reference` is played: as its recipe says if it is a run directory, else the defaults.

    Raises:
        ConfigError: the run's recipe does not fit.
    """
    recipe = Path(reference) / "recipe.yaml"
    return load_recipe(recipe).agent if recipe.is_file() else AgentConfig()


@asynccontextmanager
async def open_agent(
    reference: str,
    settings: AgentConfig | None = None,
    *,
    temperature: float | None = None,
    slots: int = 64,
    device: str = "cpu",
) -> AsyncIterator[Agent]:
    """`load_agent`'s agent, closed at the end of the block; arguments and errors are the same."""
    agent = load_agent(reference, settings, temperature=temperature, slots=slots, device=device)
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
    slots: int = 64,
    device: str = "cpu",
) -> Agent:
    """An agent; whoever calls closes it (`closing`).

    Args:
        reference: `random`, `oracle`, a run directory, `palaestra-tiny`, a model directory or a GGUF file.
        settings: how a model plays; `settings_of(reference)` if not given.
        temperature: instead of that in `settings`; 0 takes the likeliest token.
        slots: episodes that the engine computes at once.
        device: torch device of a model.

    Raises:
        UnknownNameError: there is no such agent.
        CheckpointError: the model cannot be loaded.
        MissingExtraError: a model needs the extra `train` (a GGUF file also `gguf`), and it is not installed.
    """
    if reference in PLAIN:
        return PLAIN[reference]()
    from palaestra.agents.models import SHIPPED, load_model

    if reference not in SHIPPED and not Path(reference).expanduser().exists():
        raise UnknownNameError("agent", reference, [*PLAIN, *SHIPPED])
    agent = language_agent(load_model(reference, device=device), settings or settings_of(reference), slots=slots)
    return agent if temperature is None else replace(agent, temperature=temperature)


def language_agent(loaded: LoadedModel, settings: AgentConfig, *, slots: int = 64) -> LanguageAgent:
    """An agent around a loaded model, on an engine of its own."""
    from palaestra.agents.actions import ChoiceAction, TextAction
    from palaestra.agents.chat import ChatFormat
    from palaestra.agents.context import FullContext, WindowContext
    from palaestra.agents.engines.torch_engine import TorchEngine
    from palaestra.agents.language import LanguageAgent, TokenLimits

    return LanguageAgent(
        engine=TorchEngine(loaded.model, slots=slots),
        chat=ChatFormat.from_tokenizer(loaded.tokenizer),
        actions=ChoiceAction() if settings.action == "choice" else TextAction(),
        context=WindowContext(settings.window_turns) if settings.context == "window" else FullContext(),
        limits=TokenLimits(max_tokens=settings.max_tokens),
        temperature=settings.temperature,
        system=settings.system or None,
        name=loaded.name,
    )
