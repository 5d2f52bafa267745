"""What is wrong with a game file is said before anything runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palaestra.envs.textworld.files import checked
from palaestra.errors import DataError


def write_game(folder: Path) -> Path:
    """The smallest file that passes: a header, some bytes, their length and sum."""
    body = bytes(range(256)) * 2
    length = 64 + len(body)
    header = bytearray(64)
    header[0] = 8
    header[0x1A:0x1C] = (length // 8).to_bytes(2, "big")
    header[0x1C:0x1E] = (sum(body) % 2**16).to_bytes(2, "big")
    game = folder / "game.z8"
    game.write_bytes(bytes(header) + body + b"\0" * 100)
    described = {"version": 1, "world": [], "quests": [], "infos": [], "KB": {}}
    game.with_suffix(".json").write_text(json.dumps(described))
    return game


def test_a_whole_game_passes(tmp_path: Path) -> None:
    assert checked(write_game(tmp_path)) == tmp_path / "game.z8"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*game\.z8"):
        checked(tmp_path / "game.z8")
    game = write_game(tmp_path)
    game.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"there is no file .*game\.json"):
        checked(game)


def test_other_files_are_refused(tmp_path: Path) -> None:
    game = write_game(tmp_path)
    other = tmp_path / "game.z5"
    other.write_bytes(game.read_bytes())
    with pytest.raises(DataError, match=r"\.z8"):
        checked(other)
    game.write_bytes(b"\x05" + game.read_bytes()[1:])
    with pytest.raises(DataError, match="version 8"):
        checked(game)
    game.write_bytes(b"")
    with pytest.raises(DataError, match="version 8"):
        checked(game)
    game.write_bytes(b"\x08" * (513 * 1024))
    with pytest.raises(DataError, match="at most"):
        checked(game)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(64, 575))
def test_a_truncated_game_is_refused(tmp_path: Path, size: int) -> None:
    game = write_game(tmp_path)
    game.write_bytes(game.read_bytes()[:size])
    with pytest.raises(DataError, match="truncated"):
        checked(game)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(64, 575), st.integers(1, 255))
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int, change: int) -> None:
    game = write_game(tmp_path)
    story = bytearray(game.read_bytes())
    story[place] ^= change
    game.write_bytes(story)
    with pytest.raises(DataError, match="checksum"):
        checked(game)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"version": 1}', "[" * 100_000, '{"version": 1, "world": ['])
def test_a_json_that_describes_no_game_is_refused(tmp_path: Path, text: str) -> None:
    game = write_game(tmp_path)
    game.with_suffix(".json").write_text(text)
    with pytest.raises(DataError, match=r"game\.json"):
        checked(game)
