"""A game: one scene with its objects placed, and the goal. Plain data, so that it serialises and hashes."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from palaestra.envs.alfworld import vocabulary as v
from palaestra.errors import DataError

Kind = Literal[
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]

VERB_OF_KIND: dict[str, str] = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}
"""Kinds whose object must be changed at an appliance -> the verb."""

TEMPLATES: dict[str, tuple[str, str]] = {
    "pick_and_place_simple": ("put a {object} in {place}", "put some {object} on {place}"),
    "look_at_obj_in_light": ("look at {object} under the {place}", "examine the {object} with the {place}"),
    "pick_clean_then_place_in_recep": ("put a clean {object} in {place}", "clean some {object} and put it in {place}"),
    "pick_heat_then_place_in_recep": ("put a hot {object} in {place}", "heat some {object} and put it in {place}"),
    "pick_cool_then_place_in_recep": ("put a cool {object} in {place}", "cool some {object} and put it in {place}"),
    "pick_two_obj_and_place": ("put two {object} in {place}", "find two {object} and put them in {place}"),
}
"""ALFWorld's two sentences of each task type."""


MOST_RECEPTACLES, MOST_OBJECTS = 500, 2_000
"""Bounds on a scene, ten times and more beyond ALFRED's, so that a hostile file cannot exhaust memory."""


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done."""

    kind: Kind
    object: str
    """Type of the object."""
    place: str
    """Type of the receptacle, or of the lamp for `look_at_obj_in_light`."""
    phrasing: int = 0
    """Which of the two sentences says it."""

    @property
    def text(self) -> str:
        """The sentence, without a full stop."""
        template = TEMPLATES[self.kind][self.phrasing]
        return template.format(object=v.SPOKEN[self.object], place=v.SPOKEN[self.place])


class Game(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scene and a goal. An object or receptacle is a (type, number) pair, shown as "mug 2"."""

    receptacles: tuple[tuple[str, int], ...]
    """In the order in which the room is described."""
    objects: tuple[tuple[str, int, int], ...]
    """(type, number, index of the receptacle that holds it)."""
    goal: Goal
    room: str = ""

    @property
    def layout(self) -> str:
        """Fingerprint of the room's receptacles, whatever their order: the scene without its objects."""
        parts = [self.room, *(f"{kind} {number}" for kind, number in sorted(self.receptacles))]
        return hashlib.blake2b("/".join(parts).encode(), digest_size=8).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the whole game."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=16).hexdigest()


def check_game(game: Game) -> Game:
    """`game` itself, if it is one that can be played.

    Raises:
        DataError: a type that does not exist, an object nowhere, a goal that names no such thing, far too many things.
    """
    if len(game.receptacles) > MOST_RECEPTACLES or len(game.objects) > MOST_OBJECTS:
        raise DataError(f"a game has up to {MOST_RECEPTACLES} receptacles and {MOST_OBJECTS} objects")
    for kind, number in game.receptacles:
        if kind not in v.FITS or number < 1:
            raise DataError(f"the game has an unknown receptacle {kind!r} {number}")
    for kind, number, place in game.objects:
        if kind not in v.OBJECT_TYPES or number < 1:
            raise DataError(f"the game has an unknown object {kind!r} {number}")
        if not 0 <= place < len(game.receptacles):
            raise DataError(f"{kind} {number} lies in receptacle {place}, of {len(game.receptacles)}")
    for items in (game.receptacles, [item[:2] for item in game.objects]):
        if len(set(items)) != len(items):
            raise DataError("the game names two things alike")
    _check_goal(game)
    return game


def _check_goal(game: Game) -> None:
    goal = game.goal
    if goal.phrasing not in (0, 1):
        raise DataError(f"a goal has two phrasings, 0 and 1, not {goal.phrasing}")
    places = v.LAMPS if goal.kind == "look_at_obj_in_light" else v.FITS
    if goal.object not in v.OBJECT_TYPES or goal.place not in places:
        raise DataError(f"a goal of kind {goal.kind} cannot have object {goal.object!r} and place {goal.place!r}")
