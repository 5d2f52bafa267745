"""Limits per minute, and waits between retries, by a clock that jumps."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.virtual_time import run

from palaestra.agents.engines.openai.limits import ApiLimits, Prices
from palaestra.agents.engines.openai.pacing import MINUTE, Pace
from palaestra.agents.engines.openai.retrying import asked_wait, backoff
from palaestra.agents.engines.openai.usage import Usage
from palaestra.errors import ConfigError

Sent = list[tuple[float, int]]


async def sent(pace: Pace, arrivals: Sent) -> Sent:
    """When requests were let through that arrive at these times with so many tokens, and with how many."""
    times: Sent = []

    async def one(when: float, tokens: int) -> None:
        await asyncio.sleep(when)
        await pace.turn(tokens)
        times.append((asyncio.get_running_loop().time(), tokens))

    await asyncio.gather(*(one(*arrival) for arrival in arrivals))
    return times


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 200), st.integers(0, 40)), max_size=40),
    requests=st.integers(0, 5),
    tokens=st.integers(0, 60),
)
def test_no_minute_has_more_than_allowed(arrivals: Sent, requests: int, tokens: int) -> None:
    pace = Pace(ApiLimits(requests_per_minute=requests, tokens_per_minute=tokens))
    times = run(sent(pace, arrivals))
    assert len(times) == len(arrivals)
    for start, _ in times:
        within = [amount for when, amount in times if start <= when < start + MINUTE - 1e-6]
        assert not requests or len(within) <= requests
        assert not tokens or sum(within) <= tokens or len([a for a in within if a]) == 1


def test_nothing_waits_without_need() -> None:
    pace = Pace(ApiLimits(requests_per_minute=3))
    times = run(sent(pace, [(0, 1)] * 7))
    assert [when for when, _ in times] == pytest.approx([0, 0, 0, 60, 60, 60, 120])
    free = run(sent(Pace(ApiLimits()), [(0, 10**6)] * 50))
    assert {when for when, _ in free} == {0.0}


def test_the_first_to_come_is_the_first_to_go() -> None:
    pace = Pace(ApiLimits(tokens_per_minute=10))
    assert [tokens for _, tokens in run(sent(pace, [(0, 9), (1, 10), (2, 1), (3, 2)]))] == [9, 10, 1, 2]


def test_a_correction_makes_room() -> None:
    async def go() -> float:
        pace = Pace(ApiLimits(tokens_per_minute=100))
        entry = await pace.turn(100)
        entry.amount = 10
        await pace.turn(90)
        return asyncio.get_running_loop().time()

    assert run(go()) == 0.0


def test_all_keep_quiet_when_the_endpoint_says_so() -> None:
    async def go() -> list[float]:
        pace = Pace(ApiLimits())
        pace.hold(7)
        pace.hold(3)
        return [when for when, _ in await sent(pace, [(0, 1), (1, 1), (9, 1)])]

    assert run(go()) == pytest.approx([7, 7, 9])


def test_a_cancelled_wait_holds_up_nobody() -> None:
    async def go() -> float:
        pace = Pace(ApiLimits(requests_per_minute=1))
        await pace.turn(1)
        waiting = asyncio.create_task(pace.turn(1))
        await asyncio.sleep(1)
        waiting.cancel()
        await pace.turn(1)
        return asyncio.get_running_loop().time()

    assert run(go()) == pytest.approx(60)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({}, None),
    ],
)
def test_what_an_endpoint_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, datetime(2026, 11, 21, 12, tzinfo=UTC)) == seconds


@given(st.text(max_size=100))
def test_no_header_breaks_it(text: str) -> None:
    wait = asked_wait({"Retry-After": text})
    assert wait is None or wait >= 0


def test_waits_grow_and_are_bounded() -> None:
    draws = [[backoff(n, 20.0, random.Random(seed)) for n in range(12)] for seed in range(50)]
    for waits in draws:
        assert all(0.25 * 2**n <= w <= 0.5 * 2**n for n, w in enumerate(waits[:5]))
        assert all(10 <= w <= 20 for w in waits[6:])
    assert len({waits[3] for waits in draws}) == 50, "a crowd disperses"


def test_costs() -> None:
    usage, more = Usage(), Usage()
    usage.enter(1_000_000, 250_000, 500_000, Prices(2.0, 8.0, 0.5))
    assert usage.cost == pytest.approx(0.75 * 2 + 0.25 * 0.5 + 4)
    more.enter(10, 99, 1, None)
    assert (more.cached_tokens, more.cost) == (10, None)
    usage.add(more)
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (2, 1_000_010, 500_001)
    assert usage.cost == pytest.approx(5.625)
    more.add(usage)
    assert more.cost == usage.cost


@pytest.mark.parametrize("wrong", [(-1.0, 1.0), (1.0, float("nan")), (1.0, 1.0, float("inf"))])
def test_what_is_no_price(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="a price is 0 or more"):
        Prices(*wrong)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_what_is_no_limit(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ApiLimits(**wrong)
