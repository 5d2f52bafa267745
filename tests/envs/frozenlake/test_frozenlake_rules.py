"""The dynamics are gymnasium's; the policy is the best there is; maps and splits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.frozenlake.generate import LEVELS, generate
from palaestra.envs.frozenlake.lake import ORDER, Lake, admissible, distance, outcomes, parse, rows, step_to
from palaestra.envs.frozenlake.oracle import advise
from palaestra.envs.grids import canonical
from palaestra.envs.tasks import SPLITS
from palaestra.errors import DataError

CLASSIC = ["SFFF", "FHFH", "FFFH", "HFFG"]


def theirs(lake: Lake) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
    gymnasium = pytest.importorskip(
        "gymnasium", reason="gymnasium is not installed: pip install 'palaestra[gymnasium]'"
    )
    table: Any = gymnasium.make("FrozenLake-v1", desc=list(rows(lake)), is_slippery=lake.slippery).unwrapped.P
    return dict(table)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LEVELS)), st.sampled_from(SPLITS), st.integers(0, 10_000))
def test_transitions_are_gymnasiums(level: str, split: str, index: int) -> None:
    lake = generate(level, split, index)
    table = theirs(lake)
    for cell in set(range(lake.width * lake.height)) - lake.holes - {lake.goal}:
        for action, name in enumerate(ORDER):
            ours, total = outcomes(lake, cell, name), Counter[tuple[int, float, bool]]()
            for chance, to, reward, over in table[cell][action]:
                total[to, float(reward), bool(over)] += chance  # type: ignore[assignment]
            assert {(to, float(to == lake.goal), to == lake.goal or to in lake.holes) for to in ours} == set(total)
            for (to, _, _), chance in total.items():
                assert ours.count(to) / len(ours) == pytest.approx(chance)


def test_the_classic_map_and_one_that_is_not_square() -> None:
    for lines in (CLASSIC, ["SFFFF", "HHFHG"]):
        lake = parse(lines, True)
        assert list(rows(lake)) == lines
        assert set(theirs(lake)) == set(range(len(lines) * len(lines[0])))
        assert step_to(lake, 0, "right") == theirs(parse(lines, False))[0][2][0][1] == 1


@pytest.mark.parametrize(("level", "index"), [(level, i) for level in LEVELS for i in range(5)])
def test_no_policy_is_better(level: str, index: int) -> None:
    """Worth of our policy, by gymnasium's probabilities, and of the best, for every number of steps left."""
    lake = generate(level, "test", index)
    table, cells = theirs(lake), range(lake.width * lake.height)
    ours, best = [0.0] * len(cells), [0.0] * len(cells)

    def worth(cell: int, name: str, after: list[float]) -> float:
        return sum(p * (reward or (0 if over else after[to])) for p, to, reward, over in table[cell][ORDER.index(name)])

    for left in range(1, 60):
        ours = [worth(cell, advise(lake, cell, left), ours) for cell in cells]
        best = [max(worth(cell, name, best) for name in ORDER) for cell in cells]
        assert ours == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["4x4", "8x8"]), st.integers(0, 10_000))
def test_the_policy_walks_a_shortest_way(level: str, index: int) -> None:
    lake = generate(level, "train", index)
    cell, steps, limit = lake.start, 0, LEVELS[level].max_turns
    while cell != lake.goal:
        cell = step_to(lake, cell, advise(lake, cell, limit - steps))
        steps += 1
        assert cell not in lake.holes
    assert steps == distance(lake)
    assert LEVELS[level].least <= steps <= limit


@given(st.sampled_from(sorted(LEVELS)), st.integers(0, 500), st.data())
def test_admissible_are_the_directions_that_may_lead_away(level: str, index: int, data: st.DataObject) -> None:
    lake = generate(level, "train", index)
    cell = data.draw(st.integers(0, lake.width * lake.height - 1))
    assert set(admissible(lake, cell)) == {name for name in ORDER if set(outcomes(lake, cell, name)) != {cell}}


def test_splits_share_no_map_turned_or_mirrored() -> None:
    for level in ("4x4", "8x8"):
        maps = {split: {canonical(rows(generate(level, split, index))) for index in range(300)} for split in SPLITS}
        assert all(len(found) > 150 for found in maps.values())
        assert not maps["train"] & maps["test"]
        assert not maps["train"] & maps["validation"]
        assert not maps["validation"] & maps["test"]
        assert rows(generate(f"slippery-{level}", "test", 3)) == rows(generate(level, "test", 3))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("SFFG", "list of lines"),
        (None, "list of lines"),
        ([["S", "G"]], "list of lines"),
        ([], "equal length"),
        ([""], "equal length"),
        (["SFG", "FF"], "equal length"),
        (["S" + "F" * 40 + "G"], "equal length"),
        (["SFG"] * 10**5, "equal length"),
        (["FFG"], "one S"),
        (["SGG"], "one S"),
        (["SѕG"], "one S"),
        (["SHG"], "no way"),
    ],
)
def test_what_is_no_map_is_told(lines: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse(lines, False)
