"""Recorded play from which palaestra-tiny learns: experts that search, noisy ones, random ones; training scenes only.

Nothing in an episode tells how good its player is; a model of this play therefore begins as a mixture of all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from palaestra.envs.alfworld.explorer import Explorer
from palaestra.envs.alfworld.game import KINDS
from palaestra.envs.alfworld.generate import LEVELS, Level, draw_game, split_of
from palaestra.envs.alfworld.world import World

Message = tuple[str, str]
"""(role, text), role `user` for the environment and `assistant` for the player."""


@dataclass(frozen=True)
class Mixture:
    """Who plays, and where."""

    expert: float = 0.3
    """Share of episodes without noise."""
    noisy: float = 0.45
    """Share with noise drawn evenly from `noise`; the remaining episodes are random play."""
    noise: tuple[float, float] = (0.1, 0.8)
    small: float = 0.5
    """Share of episodes on small scenes of any task type; the rest are full-sized."""
    turns: int = 24
    """Longest episode, in commands; random play stops at half of it."""
    invalid: float = 0.01
    """Chance of a command that cannot be done, so that its answer is known too."""


_SMALL = Level(KINDS, LEVELS["small"].receptacles, LEVELS["small"].objects, 1, 30)


def episodes(seed: int, mixture: Mixture = Mixture()) -> Iterator[list[Message]]:
    """An endless stream of episodes as messages, the same for the same seed."""
    rng = random.Random(f"corpus/{seed}")
    while True:
        level = _SMALL if rng.random() < mixture.small else LEVELS["full"]
        game = draw_game(rng, level, rng.choice(level.kinds))
        if game is not None and split_of(game) == "train":
            yield play(World(game), rng, mixture)


def play(world: World, rng: random.Random, mixture: Mixture) -> list[Message]:
    """One episode by a player whose skill is drawn anew."""
    draw = rng.random()
    expert, noisy = draw < mixture.expert, draw < mixture.expert + mixture.noisy
    noise = 0.0 if expert else rng.uniform(*mixture.noise) if noisy else 1.0
    player = Explorer(world, rng, noise)
    messages = [("user", world.restart())]
    for _ in range(mixture.turns if noisy else mixture.turns // 2):
        command = _mangled(world, rng) if rng.random() < mixture.invalid else _spoken(player, rng)
        messages += [("assistant", command), ("user", world.act(command))]
        if world.won():
            break
    return messages


def _spoken(player: Explorer, rng: random.Random) -> str:
    """The player's command; the long `help` text is asked for rarely."""
    command = player.command()
    while command == "help" and rng.random() < 0.97:
        command = player.command()
    return command


def _mangled(world: World, rng: random.Random) -> str:
    """A well-formed command that does not apply here."""
    thing, place = rng.choice(world.objects), rng.choice(world.receptacles)
    return rng.choice([f"take {thing} from {place}", f"open {place}", f"move {thing} to {place}", f"use {thing}"])
