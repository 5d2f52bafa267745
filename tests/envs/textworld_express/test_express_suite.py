"""The textworld-express suite, which needs neither the package nor Java."""

from __future__ import annotations

import pytest

from palaestra.envs.tasks import load_suite
from palaestra.envs.textworld_express.env import TextWorldExpressEnv
from palaestra.errors import DataError, UnknownNameError


def test_tasks_name_game_split_and_parameters() -> None:
    suite = load_suite("textworld-express/twc:validation", numLocations=2)
    assert len(suite) == 1000
    assert suite[3].name == "twc-numLocations=2-3"
    assert suite[3].params == {"game": "twc", "split": "validation", "index": 3, "params": {"numLocations": 2}}
    assert suite[3].kind == "twc"


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'coin'"):
        load_suite("textworld-express/coins:train")
    with pytest.raises(UnknownNameError, match="split"):
        load_suite("textworld-express:dev")
    with pytest.raises(DataError, match="numLocations"):
        load_suite("textworld-express:train", numLocations="many")
    with pytest.raises(UnknownNameError, match="game"):
        TextWorldExpressEnv("chess")
