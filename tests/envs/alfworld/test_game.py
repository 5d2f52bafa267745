import msgspec
import pytest
from support.alfworld_play import game

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import KINDS, MOST_RECEPTACLES, TEMPLATES, Game, Goal, check_game
from palaestra.errors import DataError

PARTS = {
    "receptacles": (("Shelf", 1), ("Desk", 1)),
    "objects": (("Mug", 1, 0), ("Book", 1, 1)),
    "goal": Goal("pick_and_place_simple", "Mug", "Desk"),
}


@pytest.mark.parametrize(
    "change",
    [
        {"receptacles": (("Shelf", 1), ("Throne", 1))},
        {"receptacles": (("Shelf", 1), ("Shelf", 1))},
        {"receptacles": (("Shelf", 0), ("Desk", 1))},
        {"receptacles": (("Shelf", 1),)},
        {"receptacles": tuple(("Shelf", i + 1) for i in range(MOST_RECEPTACLES + 1))},
        {"objects": (("Sword", 1, 0),)},
        {"objects": (("Mug", 1, -1),)},
        {"objects": (("Mug", 1, 0), ("Mug", 1, 1))},
        {"objects": (("Mug", -1, 0),)},
        {"goal": Goal("pick_and_place_simple", "Sword", "Desk")},
        {"goal": Goal("pick_and_place_simple", "Mug", "DeskLamp")},
        {"goal": Goal("look_at_obj_in_light", "Mug", "Desk")},
        {"goal": Goal("pick_and_place_simple", "Mug", "Desk", 2)},
    ],
)
def test_a_game_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    check_game(Game(**PARTS))
    with pytest.raises(DataError):
        check_game(Game(**PARTS | change))


@pytest.mark.parametrize("index", range(6))
def test_a_game_survives_json(index: int) -> None:
    drawn = game("full", index)
    again = msgspec.json.decode(msgspec.json.encode(drawn), type=Game)
    assert again == drawn
    assert (again.layout, again.fingerprint) == (drawn.layout, drawn.fingerprint)


def test_the_layout_is_the_room_without_order_and_objects() -> None:
    one = Game(**PARTS)
    assert one.layout == Game(**PARTS | {"receptacles": PARTS["receptacles"][::-1], "objects": ()}).layout
    assert one.layout != Game(**PARTS, room="bedroom").layout
    assert one.fingerprint != Game(**PARTS | {"objects": ()}).fingerprint


def test_goals_speak() -> None:
    assert Goal("pick_two_obj_and_place", "CD", "Safe", 1).text == "find two cd and put them in safe"
    assert set(TEMPLATES) == set(KINDS)


def test_the_vocabulary_is_of_one_piece() -> None:
    assert set(v.FITS) >= {kind for room in v.ROOMS.values() for kind in room}
    assert set(v.OBJECT_TYPES) >= {kind for room in v.ROOM_OBJECTS.values() for kind in room}
    assert len(v.BY_WORD) == len(v.SPOKEN)
    for things in (v.HEATABLE, v.COOLABLE, v.CLEANABLE, v.SLICEABLE, v.KNIVES, v.LAMPS):
        assert things <= set(v.OBJECT_TYPES)
