"""Following a solution and finding back to it, on a grid of rooms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from palaestra.envs.walkthrough import Done, advise

STEPS = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
SOLUTION = ["go east", "take lamp", "go north", "go north", "drop lamp"]


def moves(*directions: str) -> list[Done]:
    return [Done(f"go {direction}", True) for direction in directions]


def test_the_solution_is_followed_to_its_end() -> None:
    done: list[Done] = []
    for command in SOLUTION:
        assert advise(SOLUTION, done, "go ") == command
        done.append(Done(command, command.startswith("go ")))
    assert advise(SOLUTION, done, "go ") is None


def test_who_walked_away_is_led_back() -> None:
    assert advise(SOLUTION, moves("west", "north"), "go ") == "go south"
    assert advise(SOLUTION, moves("west", "north", "south"), "go ") == "go east"
    assert advise(SOLUTION, moves("west", "east"), "go ") == "go east"


def test_a_move_that_led_nowhere_is_no_move() -> None:
    assert advise(SOLUTION, [Done("go west", False), Done("go east", False)], "go ") == "go east"


def test_what_is_done_beside_the_solution_does_not_count() -> None:
    assert advise(SOLUTION, [Done("look", False), Done("take lamp", False)], "go ") == "go east"
    assert advise(SOLUTION, [*moves("west"), Done("take lamp", False)], "go ") == "go east"


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_whoever_follows_the_advice_does_the_whole_solution_where_it_belongs(detour: list[str]) -> None:
    """On an endless grid: after any walk, every command of the solution is done in the room that it is meant for."""
    done: list[Done] = []
    place, done_at = (0, 0), []

    def walk(direction: str) -> None:
        nonlocal place
        place = (place[0] + STEPS[direction][0], place[1] + STEPS[direction][1])
        done.append(Done(f"go {direction}", True))

    for direction in detour:
        walk(direction)
    while (command := advise(SOLUTION, done, "go ")) is not None:
        if command.startswith("go "):
            walk(command.removeprefix("go "))
        else:
            done_at.append((command, place))
            done.append(Done(command, False))
    assert done_at == [("take lamp", (1, 0)), ("drop lamp", (1, -2))]
