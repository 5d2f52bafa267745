"""How an API agent plays, and how its endpoint is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from palaestra.agents.engines.openai.exactness import LogprobsMode
from palaestra.agents.engines.openai.limits import ApiLimits, Prices
from palaestra.errors import ConfigError

ACTIONS = ("text", "choice", "message", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """All of it has a default."""

    action: Literal["text", "choice", "message", "tool"] = "text"
    """`text` takes the first line, `choice` has one of the admissible commands chosen, `message` takes all that was
    written, `tool` offers the environment's tools as functions."""
    context: Literal["full", "window"] = "full"
    """`full` sends every turn, `window` only the last `window_turns`."""
    window_turns: int = 4
    max_tokens: int = 1024
    """Most tokens of one answer, with those of thinking that is not shown."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    system: str | None = None
    """System message; `None`: one that explains the action format; empty: none."""
    tokenizer: str = ""
    """Directory (or GGUF file, or shipped model) with the model's tokenizer. With it the endpoint is sent token ids and
    has to tell token ids, as `vllm serve` does; without it, chat messages."""
    key_variable: str = ""
    """Environment variable that holds the API key; see `read_key`."""
    logprobs: LogprobsMode = "raw"
    """Which log-probs the endpoint tells."""
    limits: ApiLimits = field(default_factory=ApiLimits)
    prices: Prices | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for what does not fit together."""
        if self.tokenizer and self.action in ("choice", "tool"):
            raise ConfigError(
                f"the action format {self.action} is for endpoints that are sent messages; leave the tokenizer out, or "
                "use text"
            )
        if self.max_tokens < 1:
            raise ConfigError("an answer needs room for at least one token")
