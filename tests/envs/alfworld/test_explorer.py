import random

from support.alfworld_play import game

from palaestra.envs.alfworld.explorer import Explorer
from palaestra.envs.alfworld.world import World


def episode(index: int, seed: int, noise: float = 0.0, limit: int = 120) -> tuple[list[str], bool]:
    world = World(game("small" if index % 2 else "full", index))
    explorer, commands = Explorer(world, random.Random(seed), noise), []
    while not world.won() and len(commands) < limit:
        commands.append(explorer.command())
        assert commands[-1] in world.admissible()
        world.act(commands[-1])
    return commands, world.won()


def test_it_solves_what_it_explores() -> None:
    assert all(episode(index, index)[1] for index in range(80))


def test_noise_makes_it_slower() -> None:
    tidy = sum(len(episode(index, index)[0]) for index in range(60))
    noisy = sum(len(episode(index, index, noise=0.5)[0]) for index in range(60))
    assert noisy > 1.3 * tidy


def test_it_plays_the_same_from_the_same_seed() -> None:
    assert episode(5, 9, 0.3) == episode(5, 9, 0.3)
    assert episode(5, 9, 0.3) != episode(5, 10, 0.3)


def test_it_does_not_know_what_it_has_not_seen() -> None:
    """Objects that move among receptacles nobody has looked into do not change what it does."""
    drawn = game("full", 0)
    first = [Explorer(World(drawn), random.Random(seed)).command() for seed in range(20)]
    places = len(drawn.receptacles)
    moved = tuple((kind, number, (place + 1) % places) for kind, number, place in drawn.objects)
    other = type(drawn)(drawn.receptacles, moved, drawn.goal, drawn.room)
    assert first == [Explorer(World(other), random.Random(seed)).command() for seed in range(20)]
