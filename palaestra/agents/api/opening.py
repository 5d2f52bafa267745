"""An API agent from what a person typed."""

from __future__ import annotations

from palaestra.agents.agent import Agent
from palaestra.agents.api.agent import ApiAgent
from palaestra.agents.api.formats import FORMATS
from palaestra.agents.api.settings import ApiSettings
from palaestra.agents.context import ContextPolicy, FullContext, WindowContext
from palaestra.agents.engines.openai.address import parse_address
from palaestra.agents.engines.openai.client import Client
from palaestra.agents.engines.openai.engine import OpenAIEngine
from palaestra.agents.engines.openai.key import read_key
from palaestra.errors import require


def load_api_agent(reference: str, settings: ApiSettings | None = None) -> Agent:
    """The agent `openai:MODEL@URL`; nothing is sent yet, and whoever calls closes its `engine`.

    Args:
        reference: model and endpoint.
        settings: how it plays; `ApiSettings()` if not given.

    Raises:
        ConfigError: the reference is none, or the environment variable with the key is not as it should be.
        CheckpointError: the tokenizer cannot be loaded.
        MissingExtraError: aiohttp (extra `openai`), or what tokenizers need (extra `train`), is not installed.
    """
    settings = settings or ApiSettings()
    address = parse_address(reference)
    key = read_key(address, settings.key_variable)
    client = Client(address, key=key, limits=settings.limits, prices=settings.prices)
    if settings.tokenizer:
        return _token_agent(client, settings)
    return ApiAgent(
        engine=client,
        actions=FORMATS[settings.action](),
        context=_context(settings),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        system=settings.system,
        logprobs=settings.logprobs,
    )


def _token_agent(client: Client, settings: ApiSettings) -> Agent:
    """The ordinary language-model agent, whose tokens the endpoint continues."""
    require("transformers", "train")
    from palaestra.agents.actions import FORMATS as TOKEN_FORMATS
    from palaestra.agents.chat import ChatFormat
    from palaestra.agents.language import LanguageAgent, TokenLimits
    from palaestra.agents.tokenizer import load_tokenizer

    system = FORMATS[settings.action]().system if settings.system is None else settings.system
    return LanguageAgent(
        engine=OpenAIEngine(client, logprobs=settings.logprobs),
        chat=ChatFormat.from_tokenizer(load_tokenizer(settings.tokenizer)),
        actions=TOKEN_FORMATS[settings.action](),
        context=_context(settings),
        limits=TokenLimits(max_tokens=settings.max_tokens),
        temperature=settings.temperature,
        system=system or None,
        name=str(client.address),
        top_k=settings.top_k,
        top_p=settings.top_p,
        weights=str(client.address),
    )


def _context(settings: ApiSettings) -> ContextPolicy:
    return WindowContext(settings.window_turns) if settings.context == "window" else FullContext()
