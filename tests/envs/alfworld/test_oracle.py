import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.alfworld_play import game, play, shortest, tiny

from palaestra.envs.alfworld.game import KINDS, Game, Kind
from palaestra.envs.alfworld.generate import LEVELS
from palaestra.envs.alfworld.oracle import next_command, plan
from palaestra.envs.alfworld.world import World


@settings(max_examples=90, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 100_000), st.integers(0, 10))
def test_plans_are_shortest_from_any_state(kind: Kind, seed: int, commands: int) -> None:
    rng = random.Random(seed)
    world = World(tiny(kind, rng))
    play(world, rng, commands)
    assert len(plan(world)) == shortest(world)


@pytest.mark.parametrize("level", LEVELS)
def test_it_solves_every_game(level: str) -> None:
    for i in range(200):
        world = World(game(level, i))
        commands = plan(world)
        for left, command in enumerate(commands):
            assert not world.won()
            assert command in world.admissible()
            assert next_command(world) == command or len(plan(world)) == len(commands) - left
            world.act(command)
        assert world.won()
        assert next_command(world) == "look"
        assert plan(world) == []


def test_it_solves_from_the_middle_of_random_play() -> None:
    rng = random.Random(3)
    for i in range(60):
        world = World(game("full", i))
        play(world, rng, 15)
        for command in plan(world):
            world.act(command)
        assert world.won()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 23), st.integers(0, 1000))
def test_it_never_changes_the_state(index: int, seed: int) -> None:
    world = World(game("full", index))
    play(world, random.Random(seed), 8)
    before = world.snapshot()
    next_command(world)
    assert world.snapshot() == before


@pytest.mark.parametrize(
    "goal",
    [
        {"kind": "pick_and_place_simple", "object": "Mug", "place": "Fridge"},
        {"kind": "pick_two_obj_and_place", "object": "Egg", "place": "CounterTop"},
        {"kind": "pick_heat_then_place_in_recep", "object": "Egg", "place": "CounterTop"},
        {"kind": "pick_clean_then_place_in_recep", "object": "Book", "place": "CounterTop"},
        {"kind": "look_at_obj_in_light", "object": "Egg", "place": "DeskLamp"},
        {"kind": "look_at_obj_in_light", "object": "FloorLamp", "place": "FloorLamp"},
        {"kind": "pick_and_place_simple", "object": "Pillow", "place": "CounterTop"},
    ],
)
def test_where_nothing_helps_it_looks(goal: dict[str, str]) -> None:
    scene = {
        "receptacles": [["CounterTop", 1], ["Fridge", 1], ["SinkBasin", 1]],
        "objects": [["Egg", 1, 1], ["Book", 1, 0], ["FloorLamp", 1, 0], ["Pillow", 1, 2]],
    }
    world = World(msgspec.convert({**scene, "goal": goal}, Game))
    assert plan(world) == []
    assert next_command(world) == "look"
