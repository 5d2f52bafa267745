import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.alfworld_grammar import every_command
from support.alfworld_play import game, play

from palaestra.envs.alfworld.game import Game
from palaestra.envs.alfworld.world import NOTHING_HAPPENS, World

GAMES = st.tuples(st.sampled_from(["small", "full"]), st.integers(0, 23))
SEEDS = st.integers(0, 10_000)


def reached(which: tuple[str, int], seed: int, commands: int) -> World:
    """A world after random play."""
    world = World(game(*which))
    play(world, random.Random(seed), commands)
    return world


@settings(max_examples=60, deadline=None)
@given(GAMES, SEEDS, st.integers(0, 25))
def test_the_commands_that_do_something_are_the_admissible_ones(which: tuple[str, int], seed: int, n: int) -> None:
    world = reached(which, seed, n)
    admissible, before = world.admissible(), world.snapshot()
    assert len(set(admissible)) == len(admissible)
    assert set(admissible) <= set(every_command(world))
    for command in every_command(world):
        answer = world.act(command)
        assert (answer == NOTHING_HAPPENS) == (command not in admissible), command
        if command not in admissible:
            assert world.snapshot() == before
        world.restore(before)


NOISE = st.text(max_size=40) | st.builds(
    lambda verb, rest: f"{verb}{rest}",
    st.sampled_from(
        ["go to ", "take ", "move ", "examine ", "open", "use ", "slice ", "heat ", "go", "take mug 1 from "]
    ),
    st.text(max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(GAMES, SEEDS, st.lists(NOISE, max_size=8))
def test_any_text_is_answered_and_changes_nothing_unless_admissible(
    which: tuple[str, int], seed: int, texts: list[str]
) -> None:
    world = reached(which, seed, 6)
    before = world.snapshot()
    for text in texts:
        answer = world.act(text)
        if text not in world.admissible():
            assert answer == NOTHING_HAPPENS
            assert world.snapshot() == before


@settings(max_examples=60, deadline=None)
@given(GAMES, SEEDS, st.integers(0, 20), st.integers(1, 20))
def test_a_restored_world_continues_alike(which: tuple[str, int], seed: int, before: int, after: int) -> None:
    world = reached(which, seed, before)
    saved = world.snapshot()
    first = play(world, random.Random(seed), after), world.snapshot()
    world.restore(saved)
    assert world.snapshot() == saved
    assert (play(world, random.Random(seed), after), world.snapshot()) == first
    other = World(game(*which))
    other.restore(saved)
    assert (play(other, random.Random(seed), after), other.snapshot()) == first


@settings(max_examples=60, deadline=None)
@given(GAMES, SEEDS)
def test_nothing_is_lost_or_doubled(which: tuple[str, int], seed: int) -> None:
    world = reached(which, seed, 30)
    lying = [o for inside in world.contents for o in inside]
    assert sorted(lying + [world.held] * (world.held >= 0)) == list(range(len(world.objects)))


@settings(max_examples=30, deadline=None)
@given(GAMES, SEEDS)
def test_restart_is_the_beginning(which: tuple[str, int], seed: int) -> None:
    world = World(game(*which))
    opening, start = world.restart(), world.snapshot()
    play(world, random.Random(seed), 20)
    assert world.restart() == opening
    assert world.snapshot() == start


KITCHEN = msgspec.convert(
    {
        "receptacles": [["CounterTop", 1], ["Fridge", 1], ["Microwave", 1], ["SinkBasin", 1]],
        "objects": [["Egg", 1, 1], ["Knife", 1, 0], ["Apple", 1, 0]],
        "goal": {"kind": "pick_heat_then_place_in_recep", "object": "Egg", "place": "CounterTop"},
    },
    Game,
)
TRANSCRIPT = [
    ("look", "You are in the middle of a room. Looking quickly around you, you see nothing."),
    ("inventory", "You are not carrying anything."),
    ("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed."),
    ("take egg 1 from fridge 1", NOTHING_HAPPENS),
    ("open fridge 1", "You open the fridge 1. The fridge 1 is open. In it, you see a egg 1."),
    ("take egg 1 from fridge 1", "You pick up the egg 1 from the fridge 1."),
    ("examine fridge 1", "The fridge 1 is open. In it, you see nothing."),
    ("inventory", "You are carrying: a egg 1."),
    ("cool egg 1 with fridge 1", "You cool the egg 1 using the fridge 1."),
    ("examine egg 1", "This is a cold egg 1."),
    ("heat egg 1 with fridge 1", NOTHING_HAPPENS),
    ("go to microwave 1", "You arrive at microwave 1. The microwave 1 is closed."),
    ("heat egg 1 with microwave 1", "You heat the egg 1 using the microwave 1."),
    ("examine egg 1", "This is a hot egg 1."),
    ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a knife 1, and a apple 1."),
    ("move egg 1 to countertop 1", "You move the egg 1 to the countertop 1."),
]


def test_a_transcript() -> None:
    world = World(KITCHEN)
    assert world.restart() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see "
        "a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\nYour task is to: put a hot egg in countertop."
    )
    for command, answer in TRANSCRIPT:
        assert not world.won()
        assert world.act(command) == answer
    assert world.won()


@pytest.mark.parametrize(
    "command", ["GO TO fridge 1", "go to  fridge 1", "go to fridge", "", " ", "take", "use", "move x"]
)
def test_commands_are_taken_literally(command: str) -> None:
    assert World(KITCHEN).act(command) == NOTHING_HAPPENS
