"""Options of `palaestra eval` for a model behind an endpoint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from palaestra.cli.parser import Parser, UsageError, non_negative, positive, seconds

if TYPE_CHECKING:
    from palaestra.agents.api.settings import ApiSettings
    from palaestra.agents.engines.openai.limits import Prices

_OPTIONS = (
    *("tokenizer", "max_tokens", "window", "system", "api_key_env", "requests_per_minute", "tokens_per_minute"),
    *("price", "retries", "timeout", "logprobs"),
)
_LIMITS = {
    "requests_per_minute": "requests_per_minute",
    "tokens_per_minute": "tokens_per_minute",
    "retries": "retries",
    "timeout": "seconds",
}
"""Fields of `ApiLimits` by option."""


def configure_endpoint(parser: Parser) -> None:
    """Declare the arguments. All are `None` where they are not given."""
    group = parser.add_argument_group("a model behind an endpoint, --agent openai:MODEL@URL")
    group.add_argument(
        "--tokenizer", metavar="PATH", help="of the model: send token ids to an endpoint that tells token ids"
    )
    group.add_argument("--max-tokens", type=positive, metavar="N", help="most tokens of one answer (default: 1024)")
    group.add_argument("--window", type=positive, metavar="N", help="send the first and the last N turns only")
    group.add_argument("--system", metavar="TEXT", help="system message (default: one about the action format)")
    group.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the API key (default: OPENAI_API_KEY)"
    )
    group.add_argument("--requests-per-minute", type=non_negative, metavar="N", help="most requests in any minute")
    group.add_argument("--tokens-per-minute", type=non_negative, metavar="N", help="most tokens in any minute")
    group.add_argument(
        "--price", type=_prices, metavar="IN,OUT[,KEPT]", help="of a million tokens of prompt, answer, kept prompt"
    )
    group.add_argument("--retries", type=non_negative, metavar="N", help="of a request that failed (default: 6)")
    group.add_argument("--timeout", type=seconds, metavar="SECONDS", help="of one request (default: 300)")
    group.add_argument(
        "--logprobs", choices=("raw", "processed"), help="as in the endpoint's --logprobs-mode (default: raw)"
    )


def refuse_endpoint_options(args: argparse.Namespace) -> None:
    """Options that the agent has no use for are a mistake.

    Raises:
        UsageError: there is one.
    """
    for name in _OPTIONS:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for a model behind an endpoint, --agent openai:MODEL@URL")
    if args.action == "tool":
        raise UsageError("--action tool is for a model behind an endpoint; others call tools in --action message")


def endpoint_settings(args: argparse.Namespace) -> ApiSettings:
    """What the command line says, and the defaults.

    Raises:
        ConfigError: it does not fit together.
        UsageError: an option has no meaning here.
    """
    from palaestra.agents.api.settings import ApiSettings
    from palaestra.agents.engines.openai.limits import ApiLimits

    if args.device is not None:
        raise UsageError("--device is for models on this machine; an endpoint has its own")
    limits = {field: getattr(args, option) for option, field in _LIMITS.items()}
    said: dict[str, Any] = {
        **{name: getattr(args, name) for name in ("action", "temperature", "top_k", "top_p", "tokenizer")},
        **{name: getattr(args, name) for name in ("max_tokens", "system", "logprobs")},
        "key_variable": args.api_key_env,
        "prices": args.price,
        "limits": ApiLimits(concurrency=args.concurrency, **_given(limits)),
    }
    if args.window is not None:
        said |= {"context": "window", "window_turns": args.window}
    return ApiSettings(**_given(said))


def _given(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value is not None}


def _prices(text: str) -> Prices:
    """An argparse type: two or three numbers."""
    from palaestra.agents.engines.openai.limits import Prices
    from palaestra.errors import ConfigError

    try:
        return Prices(*map(float, text.split(",")))
    except (TypeError, ValueError, ConfigError):
        wanted = "two or three prices of a million tokens, as 0.15,0.60"
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
