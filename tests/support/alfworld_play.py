"""Games to test with, and ways to play them."""

import random
from collections import deque
from functools import cache

from palaestra.envs.alfworld.game import KINDS, Game, Kind
from palaestra.envs.alfworld.generate import Level, draw_game, generate
from palaestra.envs.alfworld.world import State, World

TINY = Level(KINDS, (3, 4), (3, 4), 1, 20)
"""Small enough to search through."""


@cache
def game(level: str, index: int, split: str = "train") -> Game:
    return generate(level, split, index)


def tiny(kind: Kind, rng: random.Random) -> Game:
    while True:
        drawn = draw_game(rng, TINY, kind)
        if drawn is not None:
            return drawn


def shortest(world: World) -> int:
    """Length of a shortest plan, by breadth-first search over every admissible command; the state is left as it was."""
    start = world.snapshot()
    seen, queue = {_unordered(start)}, deque([(start, 0)])
    while queue:
        state, depth = queue.popleft()
        world.restore(state)
        if world.won():
            world.restore(start)
            return depth
        for command in world.admissible():
            world.restore(state)
            world.act(command)
            reached = world.snapshot()
            if _unordered(reached) not in seen:
                seen.add(_unordered(reached))
                queue.append((reached, depth + 1))
    raise AssertionError("the game cannot be won")


def _unordered(state: State) -> State:
    return state._replace(contents=tuple(tuple(sorted(inside)) for inside in state.contents))


def play(world: World, rng: random.Random, commands: int) -> list[str]:
    """So many random admissible commands; the texts."""
    return [world.act(rng.choice(world.admissible())) for _ in range(commands)]
