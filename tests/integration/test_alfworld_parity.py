"""Our household engine against the original `alfworld`: the same answers in every state, over 500 states and more."""

import random
import re
from collections.abc import Iterator

import msgspec
import pytest
from support.alfworld_grammar import every_command
from support.alfworld_original import Answer, Original, interpreter

from palaestra.envs.alfworld.game import KINDS, Game
from palaestra.envs.alfworld.generate import generate
from palaestra.envs.alfworld.oracle import next_command
from palaestra.envs.alfworld.world import NOTHING_HAPPENS, World

pytestmark = pytest.mark.integration

GAMES = [("small", i) for i in range(12)] + [("full", i) for i in range(12)]
RANDOM_COMMANDS = 20
"""Before the oracle takes over; with the opening that makes 21 states a game, 504 in all, and the oracle's."""


@pytest.fixture(scope="module")
def original() -> Iterator[Original]:
    python = interpreter()
    if python is None:
        pytest.skip(
            "no alfworld: pip install 'palaestra[alfworld]', or name a Python that has it in PALAESTRA_ALFWORLD_PYTHON"
        )
    with Original(python, fast_grammar=True) as process:
        yield process


def facts(text: str) -> str:
    """The text with its lists in a fixed order: the original lists things in its planner's order."""
    return re.sub(r"(?<=you see )a [^.]+", lambda match: str(sorted(re.split(r", and |, ", match[0]))), text)


def check(world: World, ours: str, theirs: Answer) -> None:
    assert facts(ours) == facts(theirs.text)
    assert sorted(world.admissible()) == sorted(theirs.commands)
    assert world.won() == theirs.won


def draw(world: World, rng: random.Random) -> str:
    """An admissible command, every verb as likely as the others."""
    commands = world.admissible()
    verb = rng.choice(sorted({command.split()[0] for command in commands}))
    return rng.choice([command for command in commands if command.split()[0] == verb])


def inadmissible(world: World, rng: random.Random) -> str:
    allowed = set(world.admissible())
    return rng.choice([command for command in every_command(world) if command not in allowed])


@pytest.mark.parametrize(("level", "index"), GAMES)
def test_every_state_is_the_originals(original: Original, level: str, index: int) -> None:
    game, rng = generate(level, "train", index), random.Random(index)
    world = World(game)
    check(world, world.restart(), original.load(game))
    for _ in range(RANDOM_COMMANDS):
        if rng.random() < 0.25:
            refused = inadmissible(world, rng)
            assert world.act(refused) == original.step(refused).text == NOTHING_HAPPENS
        command = draw(world, rng)
        check(world, world.act(command), original.step(command))
    while not world.won():
        command = next_command(world)
        check(world, world.act(command), original.step(command))


def test_rare_commands_are_the_originals(original: Original) -> None:
    """What random play seldom reaches: every state of an object, examined; lamps; knives."""
    game = msgspec.convert(SCENE, Game)
    world = World(game)
    check(world, world.restart(), original.load(game))
    for command in SCRIPT.strip().splitlines():
        check(world, world.act(command), original.step(command))


def test_the_games_are_of_all_kinds() -> None:
    assert {generate(level, "train", index).goal.kind for level, index in GAMES} == set(KINDS)


SCENE = {
    "receptacles": [
        ["CounterTop", 1], ["Fridge", 1], ["Microwave", 1], ["SinkBasin", 1], ["SideTable", 1], ["BathtubBasin", 1],
    ],
    "objects": [
        ["Apple", 1, 0], ["Knife", 1, 0], ["Egg", 1, 1], ["DeskLamp", 1, 4], ["Cloth", 1, 5], ["ButterKnife", 1, 3],
    ],
    "goal": {"kind": "look_at_obj_in_light", "object": "Apple", "place": "DeskLamp", "phrasing": 0},
    "room": "",
}  # fmt: skip
SCRIPT = """
inventory
help
go to countertop 1
look
take knife 1 from countertop 1
inventory
examine knife 1
slice apple 1 with knife 1
go to fridge 1
examine fridge 1
slice egg 1 with knife 1
open fridge 1
close fridge 1
go to sinkbasin 1
clean knife 1 with sinkbasin 1
examine knife 1
move knife 1 to sinkbasin 1
go to countertop 1
take apple 1 from countertop 1
examine apple 1
go to microwave 1
heat apple 1 with microwave 1
examine apple 1
go to sinkbasin 1
clean apple 1 with sinkbasin 1
examine apple 1
go to fridge 1
cool apple 1 with fridge 1
examine apple 1
open fridge 1
move apple 1 to fridge 1
take egg 1 from fridge 1
examine egg 1
cool egg 1 with fridge 1
examine egg 1
go to microwave 1
heat egg 1 with microwave 1
examine egg 1
open microwave 1
move egg 1 to microwave 1
examine microwave 1
close microwave 1
go to fridge 1
take apple 1 from fridge 1
go to sidetable 1
use desklamp 1
look
use desklamp 1
go to bathtubbasin 1
examine bathtubbasin 1
go to sidetable 1
"""
