"""Scenes and tasks from seeds, at named levels, with splits that cannot overlap.

A game's split is decided by a hash of its *layout* (room and receptacles, without the objects): 10 % of all layouts
belong to `test`, 10 % to `validation`, the rest to `train`. A test game therefore plays in a scene that no training
game has, whatever seeds are drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import KINDS, VERB_OF_KIND, Game, Goal, Kind
from palaestra.envs.alfworld.oracle import plan
from palaestra.envs.alfworld.world import World
from palaestra.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Level:
    """How large the scenes are and what is asked for."""

    kinds: tuple[Kind, ...]
    """Task types, drawn evenly."""
    receptacles: tuple[int, int]
    """The number wanted is drawn between these. A scene never has more; it has fewer where the kinds of receptacles
    that the room has, drawn by ALFRED's frequencies, run out before."""
    objects: tuple[int, int]
    """The number wanted is drawn between these. Those that fit into no receptacle of the scene are left out, so that
    it may have fewer, but never fewer than the task needs; a lamp that the task needs comes on top."""
    least_plan: int
    """Games whose oracle plan is shorter are not used, in commands."""
    max_turns: int
    """Commands after which the episode is cut off."""


LEVELS: dict[str, Level] = {
    "small": Level(KINDS[2:], (5, 8), (5, 10), 6, 16),
    "full": Level(KINDS, (9, 30), (12, 32), 1, 50),
}
"""`small`: rooms of 8 receptacles at most and the four types whose plans have 6 commands or more (clean, heat, cool,
two objects). `full`: ALFRED-sized rooms and all six types."""


def generate(level: str, split: str, index: int) -> Game:
    """Game number `index` of a split; always the same one.

    Raises:
        UnknownNameError: no such level, or a split other than train, validation and test.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of alfworld", level, LEVELS)
    if split not in ("train", "validation", "test"):
        raise UnknownNameError("split of generated households", split, ("train", "validation", "test"))
    rng = random.Random(f"household/{level}/{split}/{index}")
    kind = LEVELS[level].kinds[index % len(LEVELS[level].kinds)]
    for _ in count():
        game = draw_game(rng, LEVELS[level], kind)
        if game is not None and split_of(game) == split:
            return game
    raise AssertionError("unreachable: count() does not end")


def split_of(game: Game) -> str:
    """The split that the game's layout belongs to."""
    bucket = int(game.layout, 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def draw_game(rng: random.Random, level: Level, kind: Kind) -> Game | None:
    """One attempt at a game of `kind`; `None` where the draw does not fit together."""
    room = rng.choice(_ROOMS_OF_KIND[kind])
    receptacles = _draw_receptacles(rng, room, level, kind)
    goal = _draw_goal(rng, room, receptacles, kind)
    if goal is None:
        return None
    objects = _draw_objects(rng, room, receptacles, level, goal)
    if objects is None:
        return None
    game = Game(receptacles=tuple(receptacles), objects=tuple(objects), goal=goal, room=room)
    world = World(game)
    return game if not world.won() and len(plan(world)) >= level.least_plan else None


_ROOMS_OF_KIND: dict[str, tuple[str, ...]] = {
    "pick_and_place_simple": tuple(v.ROOMS),
    "look_at_obj_in_light": ("living room", "bedroom"),
    "pick_clean_then_place_in_recep": ("kitchen", "kitchen", "bathroom"),
    "pick_heat_then_place_in_recep": ("kitchen",),
    "pick_cool_then_place_in_recep": ("kitchen",),
    "pick_two_obj_and_place": tuple(v.ROOMS),
}


def _draw_receptacles(rng: random.Random, room: str, level: Level, kind: str) -> list[tuple[str, int]]:
    """Receptacles of a room: what the kind of task needs first, the rest by ALFRED's frequencies, in shuffled order."""
    table = v.ROOMS[room]
    counts = {v.APPLIANCE[VERB_OF_KIND[kind]]: 1} if kind in VERB_OF_KIND else {}
    size = rng.randint(*level.receptacles)
    wanted = [name for name, (share, _, _) in table.items() if name not in counts and rng.random() < share]
    rng.shuffle(wanted)
    for name in wanted:
        _, least, most = table[name]
        counts[name] = min(rng.randint(least, most), size - sum(counts.values()))
        if sum(counts.values()) >= size:
            break
    receptacles = [(name, i + 1) for name, number in counts.items() for i in range(number)]
    rng.shuffle(receptacles)
    return receptacles


def _draw_goal(rng: random.Random, room: str, receptacles: list[tuple[str, int]], kind: Kind) -> Goal | None:
    kinds = sorted({name for name, _ in receptacles})
    phrasing = rng.randrange(2)
    if kind == "look_at_obj_in_light":
        stands = [name for name in kinds if name in _LAMP_STANDS]
        movable = [o for o in v.ROOM_OBJECTS[room] if any(o in v.FITS[name] for name in kinds)]
        lamp = rng.choice(sorted(v.LAMPS))
        return Goal(kind, rng.choice(movable), lamp, phrasing) if stands and movable else None
    verb = VERB_OF_KIND.get(kind)
    pool = [o for o in v.ROOM_OBJECTS[room] if verb is None or o in v.AFFORDS[verb]]
    thing = rng.choice(pool)
    places = [name for name in kinds if thing in v.FITS[name]]
    return Goal(kind, thing, rng.choice(places), phrasing) if places else None


_LAMP_STANDS = ("Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable", "Shelf")


def _draw_objects(
    rng: random.Random, room: str, receptacles: list[tuple[str, int]], level: Level, goal: Goal
) -> list[tuple[str, int, int]] | None:
    """Objects and where they lie: what the goal needs, outside its target, then others; in shuffled order."""
    need = 2 if goal.kind == "pick_two_obj_and_place" else 1
    wanted = [goal.object] * (need + (rng.random() < 0.25))
    size = max(rng.randint(*level.objects), len(wanted))
    others = [o for o in v.ROOM_OBJECTS[room] if o != goal.object]
    wanted += [rng.choice(others) for _ in range(size - len(wanted))]
    homes = _draw_homes(rng, receptacles, wanted, goal)
    if goal.kind == "look_at_obj_in_light":
        stands = [i for i, (name, _) in enumerate(receptacles) if name in _LAMP_STANDS]
        homes.append((goal.place, rng.choice(stands)))
    if sum(name == goal.object for name, _ in homes) < need:
        return None
    rng.shuffle(homes)
    numbers: dict[str, int] = {}
    objects = []
    for name, place in homes:
        numbers[name] = numbers.get(name, 0) + 1
        objects.append((name, numbers[name], place))
    return objects


def _draw_homes(
    rng: random.Random, receptacles: list[tuple[str, int]], wanted: list[str], goal: Goal
) -> list[tuple[str, int]]:
    """(object type, receptacle) for each wanted object that fits anywhere. A receptacle *type* is drawn before the
    receptacle, so that twenty cabinets do not swallow everything."""
    homes = []
    for name in wanted:
        avoid = goal.place if name == goal.object else ""
        kinds = sorted({kind for kind, _ in receptacles if name in v.FITS[kind] and kind != avoid})
        if kinds:
            kind = rng.choice(kinds)
            homes.append((name, rng.choice([i for i, (other, _) in enumerate(receptacles) if other == kind])))
    return homes
