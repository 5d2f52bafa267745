"""When a request is sent again, and how long that waits."""

from __future__ import annotations

import email.utils
import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed later."""
FIRST_WAIT = 0.5
"""Seconds before the first retry, on average three quarters of it; doubled with each further one."""


def backoff(attempt: int, most: float, draw: random.Random) -> float:
    """Seconds before retry `attempt` (0 is the first): exponential, with a random part so that crowds disperse."""
    return min(most, FIRST_WAIT * 2.0 ** min(attempt, 32)) * draw.uniform(0.5, 1.0)


def asked_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110) asks for; `None` if none.

    Args:
        headers: of the answer.
        now: instead of the present time.
    """
    text = headers.get("retry-after-ms", "").strip()[:64]
    if (milliseconds := _number(text)) is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After", "").strip()[:64]
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
