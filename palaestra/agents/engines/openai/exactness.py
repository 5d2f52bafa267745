"""Whether an endpoint's log-probs are those that a learner computes.

vLLM tells log-probs of temperature 1 over all tokens unless it was started with `--logprobs-mode processed_logprobs`;
then they are those of what was drawn from. A client cannot see which, so the user says so where it matters.
"""

from __future__ import annotations

from typing import Literal

LogprobsMode = Literal["raw", "processed"]
"""`raw`: before temperature, top-k and top-p. `processed`: after."""

_OTHER = (
    "it was sampled at temperature {:g}, and the endpoint's log-probs are of temperature 1; start it with "
    "--logprobs-mode processed_logprobs, and say --logprobs processed"
)


def mismatch(mode: LogprobsMode, temperature: float, top_k: int, top_p: float) -> str:
    """Why log-probs of tokens sampled so are not those of the full distribution at the temperature; empty if they are.

    At temperature 0 they should be those of temperature 1, as `SamplingParams` has it.
    """
    if mode == "raw":
        return "" if temperature in (0, 1) else _OTHER.format(temperature)
    if temperature == 0 or top_k or top_p < 1:
        return "its log-probs are of a distribution that was cut (temperature 0, top-k or top-p)"
    return ""
