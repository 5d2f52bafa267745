"""The user's ALFWorld games: which there are, and files that are not what they should be."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from palaestra.envs.alfworld.userdata import GAME, MOST_GAME, TRAJECTORY, load_original, read_game
from palaestra.envs.tasks import load_suite
from palaestra.errors import ConfigError, DataError, UnknownNameError

KIND = "pick_and_place_simple"
CONTENT = {"pddl_domain": "d", "grammar": "g", "pddl_problem": "p", "solvable": True, "walkthrough": ["look"]}


def trial(root: Path, name: str = f"{KIND}-Mug-None-Desk-1/trial_1", split: str = "valid_seen", **changes: Any) -> Path:
    """A folder with a game; a change to `None` leaves the key out."""
    folder = root / "json_2.1.1" / split / name
    folder.mkdir(parents=True)
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
    (folder / GAME).write_text(json.dumps(content))
    (folder / TRAJECTORY).write_text(json.dumps({"task_type": KIND, "images": []}))
    return folder


def read(root: Path, name: str = f"valid_seen/{KIND}-Mug-None-Desk-1/trial_1") -> Any:
    return read_game({"trial": name, "data": str(root)})


def test_games_are_listed_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (3, 1, 2):
        trial(tmp_path, f"{KIND}-Mug-None-Desk-{number}/trial_{number}")
    trial(tmp_path, "look_at_obj_in_light-Book-None-DeskLamp-9/trial_1", split="valid_unseen")
    trial(tmp_path, split="train")
    suite = load_suite("alfworld/original:valid_seen", data=tmp_path)
    assert [task.name for task in suite] == [f"{KIND}-Mug-None-Desk-{n}/trial_{n}" for n in (1, 2, 3)]
    assert suite[0].kind == KIND
    assert suite[0].env == "alfworld/Original-v0"
    assert suite[0].params["max_turns"] == 50
    assert read_game(suite[2].params).kind == KIND
    assert load_suite("alfworld/original:validation", data=tmp_path / "json_2.1.1")[0].name == suite[0].name
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    (test,) = load_suite("alfworld/original:test")
    assert (test.kind, test.split) == ("look_at_obj_in_light", "test")
    assert "data" not in test.params
    assert read_game(test.params).data["grammar"] == "g"
    assert len(load_suite("alfworld/original:train")) == 1


def test_what_the_original_leaves_out_is_left_out(tmp_path: Path) -> None:
    trial(tmp_path)
    trial(tmp_path, "pick_and_place_with_movable_recep-Mug-Plate-Desk-1/trial_1")
    trial(tmp_path, f"{KIND}-AppleSliced-None-Desk-1/trial_1")
    trial(tmp_path, f"{KIND}-A-None-Desk-1/trial_1", solvable=False)
    trial(tmp_path, f"{KIND}-B-None-Desk-1/trial_1", solvable=None)
    (trial(tmp_path, f"{KIND}-C-None-Desk-1/trial_1") / TRAJECTORY).unlink()
    (trial(tmp_path, f"{KIND}-D-None-Desk-1/trial_1") / GAME).unlink()
    assert [task.name for task in load_original("valid_seen", tmp_path)] == [f"{KIND}-Mug-None-Desk-1/trial_1"]


def test_a_bad_file_spoils_its_own_task_only(tmp_path: Path) -> None:
    whole = trial(tmp_path)
    for number, content in enumerate(
        (b"{", b"", b"\x80\x04K\x01.", b"PK\x03\x04", b'{"solvable": "yes"}', b"[" * 10**5)
    ):
        (trial(tmp_path, f"{KIND}-X{number}-None-Desk-1/trial_1") / GAME).write_bytes(content)
    suite = load_original("valid_seen", tmp_path)
    assert len(suite) == 7
    for task in suite:
        if task.name == f"{whole.parent.name}/{whole.name}":
            assert read_game(task.params).data["pddl_domain"] == "d"
        else:
            with pytest.raises(DataError, match=r"game\.tw-pddl"):
                read_game(task.params)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({**CONTENT, "solvable": False}, "not solvable"),
        ({**CONTENT, "grammar": 3}, r"game\.tw-pddl.*grammar"),
        ({"solvable": True}, "missing.*pddl_domain"),
        ([], r"game\.tw-pddl"),
        ({**CONTENT, "pddl_problem": "x" * MOST_GAME}, "which is the limit"),
    ],
)
def test_a_game_that_cannot_be_played_is_told(tmp_path: Path, content: Any, told: str) -> None:
    (trial(tmp_path) / GAME).write_text(json.dumps(content))
    with pytest.raises(DataError, match=told):
        read(tmp_path)


def test_a_gzip_bomb_is_told(tmp_path: Path) -> None:
    (trial(tmp_path) / GAME).write_bytes(gzip.compress(b" " * (10 * MOST_GAME)))
    with pytest.raises(DataError, match="which is the limit"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", r"traj_data\.json"), ('{"task_type": "cook"}', "'cook', which is not played"), ("[]", r"traj_data\.json")],
)
def test_a_bad_trajectory_is_told(tmp_path: Path, content: str, told: str) -> None:
    (trial(tmp_path) / TRAJECTORY).write_text(content)
    with pytest.raises(DataError, match=told):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../secret", "leads out of"),
        ("valid_seen/../../../secret", "leads out of"),
        ("/etc", "leads out of"),
        ("valid_seen/link/trial_1", "leads out of"),
        (f"valid_seen/{KIND}-Mug-None-Desk-1/linked", "leads out of"),
        ("valid_seen/loop", "loop|cannot be followed|does not exist"),
        ("valid_seen", "does not exist"),
        ("valid_seen/nothing/there", "does not exist"),
        ("x" * 10**6, "SPLIT/TASK/TRIAL"),
        ("a\0b", "SPLIT/TASK/TRIAL"),
        ("", "SPLIT/TASK/TRIAL"),
        (7, "SPLIT/TASK/TRIAL"),
        (None, "SPLIT/TASK/TRIAL"),
    ],
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, name: Any, told: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "secret"
    own, stolen = trial(inside), trial(outside)
    os.symlink(stolen.parent, inside / "json_2.1.1" / "valid_seen" / "link")
    os.symlink(inside / "json_2.1.1" / "valid_seen" / "loop", inside / "json_2.1.1" / "valid_seen" / "loop")
    (own.parent / "linked").mkdir()
    for file in (GAME, TRAJECTORY):
        os.symlink(stolen / file, own.parent / "linked" / file)
    assert read(inside).kind == KIND
    with pytest.raises(DataError, match=told):
        read(inside, name)


def test_a_folder_that_holds_something_else_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(DataError, match="ALFWORLD_DATA"):
        load_original("train")
    for nothing in (tmp_path, tmp_path / "nowhere", "a\0b", "~nobody-at-all/x"):
        with pytest.raises(DataError):
            load_original("train", nothing)
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="has no games"):
        load_original("train", tmp_path)
    with pytest.raises(DataError, match="has no games"):
        load_original("test", tmp_path)


def test_names_that_do_not_exist_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'valid_seen'"):
        load_suite("alfworld/original:valid_sen", data=tmp_path)
    with pytest.raises(ConfigError, match="layouts"):
        load_suite("alfworld/original:train", layouts=3)
    with pytest.raises(UnknownNameError, match="'original'"):
        load_suite("alfworld/originel:train")
