"""Global generators that belong to one episode at a time."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from palaestra.envs.chance import Chance

LENT_NUMPY = np.random.randint  # the global generator is what this is about


def draws(chance: Chance, n: int = 3) -> list[tuple[float, int]]:
    with chance.lent():
        return [(random.random(), int(LENT_NUMPY(10**6))) for _ in range(n)]


def state() -> tuple[object, object]:
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002


def test_a_seed_fixes_the_draws_and_nobody_else_sees_them() -> None:
    before = state()
    assert draws(Chance(3), 6) == draws(Chance(3), 6) != draws(Chance(4), 6)
    assert state() == before


def test_draws_go_on_where_they_were_left_beside_others() -> None:
    whole = draws(Chance(3), 6)
    one, other = Chance(3), Chance(4)
    first = draws(one)
    draws(other)
    twin = one.copy()
    assert first + draws(one) == whole
    assert draws(twin) == whole[3:]


def test_seeding_inside_stays_inside() -> None:
    before, chance = state(), Chance(0)
    with chance.lent():
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
    assert state() == before
    assert draws(chance)[0][0] == random.Random(5).random()


def test_they_come_back_after_an_error_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    before = state()

    def fail() -> None:
        with Chance(0).lent():
            print(random.random())
            raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        fail()
    assert state() == before
    assert capsys.readouterr().out == ""


def test_threads_take_turns() -> None:
    alone = [draws(Chance(seed), 200) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda seed: draws(Chance(seed), 200), range(6))) == alone
