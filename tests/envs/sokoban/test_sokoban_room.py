"""The rules: moves, pictures, and play that was recorded from gym-sokoban 0.0.6."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.envs.grids import DIRECTIONS
from palaestra.envs.sokoban.env import _reward
from palaestra.envs.sokoban.generate import LEVELS, generate
from palaestra.envs.sokoban.room import admissible, move, parse, picture, solved
from palaestra.errors import DataError

RECORDED = json.loads(Path(__file__).with_name("gym_sokoban_play.json").read_text())
NAMES = {name[0]: name for name in DIRECTIONS}


@pytest.mark.parametrize("episode", RECORDED)
def test_rewards_and_rooms_are_gym_sokobans(episode: dict[str, object]) -> None:
    room, state = parse(str(episode["room"]))
    rewards = []
    for letter in str(episode["moves"]):
        before, state = state, move(room, state, room.steps[NAMES[letter]])
        rewards.append(round(_reward(room, before, state), 6))
    assert rewards == episode["rewards"]
    assert "\n".join(picture(room, state.boxes, state.player)) == episode["end"]
    assert solved(room, state) == episode["done"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["tiny", "small", "medium"]), st.integers(0, 300), st.lists(st.sampled_from(sorted(DIRECTIONS))))
def test_no_move_loses_anything(level: str, index: int, moves: list[str]) -> None:
    room, state = generate(level, "train", index)
    for name in moves:
        after = move(room, state, room.steps[name])
        assert (after is not state) == (name in admissible(room, state)) == (after != state)
        state = after
        assert len(state.boxes) == LEVELS[level].boxes
        assert state.boxes | {state.player} <= room.floor
        assert state.player not in state.boxes
    assert parse("\n".join(picture(room, state.boxes, state.player))) == (room, state)


def test_ragged_rooms_are_filled_and_fenced() -> None:
    room, state = parse("P_X_O\n__")
    assert picture(room, state.boxes, state.player) == ("#######", "#P_X_O#", "#__####", "#######")
    again, _ = parse("#######\n#P_X_O#\n#__#\n####")
    assert (again.floor, again.width) == (room.floor, room.width)


def test_every_symbol_is_read() -> None:
    text = "#####\n#S√X#\n#___#\n#O__#\n#####"
    with pytest.raises(DataError, match="not 3 and 2"):
        parse(text)
    room, state = parse(text.replace("O", "_"))
    assert len(room.targets) == 2
    assert state.player in room.targets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "text of at most"),
        ("\n\n", "text of at most"),
        ("PXO\n" * 41, "text of at most"),
        ("P" * 10_000_000, "text of at most"),
        ("PXO@", "no cell '@'"),
        ("PХO", "no cell"),  # a Cyrillic letter
        ("XO", "one player, not 0"),
        ("PPXO", "one player, not 2"),
        ("P_O", "1 and 0"),
        ("P__", "0 and 0"),
        (7, "text of at most"),
        (None, "text of at most"),
    ],
)
def test_what_is_no_room_is_told(text: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parse(text)  # type: ignore[arg-type]
