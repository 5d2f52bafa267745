import asyncio
import gzip
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from palaestra.envs.alfworld.alfred import load_alfred, read_games, read_layout
from palaestra.envs.alfworld.env import HouseholdEnv
from palaestra.envs.alfworld.game import KINDS
from palaestra.envs.tasks import load_suite
from palaestra.errors import DataError, MissingExtraError

LAYOUT = {
    "CounterTop|+00.00|+01.00|00.00": [0, 0, 0, 0],
    "Drawer|+02.00|+01.00|00.00": [0, 0, 0, 0],
    "Drawer|-02.00|+01.00|00.00": [0, 0, 0, 0],
    "Sink|-01.90|+00.97|-01.50|SinkBasin": [0, 0, 0, 0],
    "Desk|+05.00|+01.00|00.00": [0, 0, 0, 0],
    "Throne|+05.00|+01.00|00.00": [0, 0, 0, 0],
}


def trial(name: str = "t1", **changes: Any) -> dict[str, Any]:
    """A trial as ALFRED writes it."""
    aim = {"object_target": "Fork", "parent_target": "Drawer", "toggle_target": "", "mrecep_target": ""}
    return {
        "trial": name,
        "task_type": "pick_and_place_simple",
        "pddl_params": {**aim, "object_sliced": False, **changes.pop("aim", {})},
        "floor_plan": "FloorPlan1",
        "agent": [0.0, 0.9, 0.0],
        "objects": [["Fork", 0.1, 1.0, 0.1], ["Book", 5.0, 1.0, 0.0], ["TeddyBear", 0.0, 0.0, 0.0]],
        "toggled": [],
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "layouts").mkdir()
    (tmp_path / "layouts" / "FloorPlan1-openable.json").write_text(json.dumps(LAYOUT))
    return tmp_path


def write(folder: Path, *trials: dict[str, Any] | bytes) -> Path:
    lines = [t if isinstance(t, bytes) else json.dumps(t).encode() for t in trials]
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    return folder


def load(folder: Path) -> list[Any]:
    return list(load_alfred("train", data=folder, layouts=folder / "layouts"))


def test_a_trial_becomes_a_game(folder: Path) -> None:
    (task,) = load(write(folder, trial()))
    game = task.params["game"]
    assert (task.name, task.split, task.kind) == ("t1", "train", "pick_and_place_simple")
    assert task.params["max_turns"] == 50
    places = [("CounterTop", 1), ("Desk", 1), ("Drawer", 1), ("Drawer", 2), ("SinkBasin", 1)]
    assert [tuple(r) for r in game["receptacles"]] == places
    assert [tuple(o) for o in game["objects"]] == [("Fork", 1, 0), ("Book", 1, 1)]
    assert game["room"] == "FloorPlan1"


def test_what_cannot_be_played_is_counted(folder: Path) -> None:
    write(
        folder,
        trial("good"),
        trial("sliced", aim={"object_sliced": True}),
        trial("stacked", task_type="pick_and_place_with_movable_recep"),
        trial("done", objects=[["Fork", 2.0, 1.0, 0.0]]),
        trial("no place", aim={"parent_target": "Safe"}),
        trial("no such type", aim={"parent_target": "Throne"}),
        trial("one of two", task_type="pick_two_obj_and_place"),
    )
    games = read_games(folder / "train.jsonl.gz", folder / "layouts")
    assert [name for name, _ in games.trials] == ["good"]
    assert games.dropped == {"sliced": 1, "another kind": 1, "already done": 1, "not solvable": 3}


def test_sinks_are_basins_and_lamps_stand_on_furniture(folder: Path) -> None:
    aim = {"object_target": "Book", "parent_target": "", "toggle_target": "DeskLamp"}
    lit = trial("lamp", task_type="look_at_obj_in_light", aim=aim, toggled=[{"isOn": False, "objectType": "DeskLamp"}])
    clean = trial("sink", task_type="pick_clean_then_place_in_recep", aim={"parent_target": "Sink"})
    lamp, sink = load(write(folder, lit, clean))
    assert next(o for o in lamp.params["game"]["objects"] if o[0] == "DeskLamp")[2] == 1
    assert sink.params["game"]["goal"]["place"] == "SinkBasin"


def test_phrasings_depend_on_the_name_alone(folder: Path) -> None:
    write(folder, *(trial(f"t{i}") for i in range(40)))
    phrasings = [task.params["game"]["goal"]["phrasing"] for task in load(folder)]
    assert set(phrasings) == {0, 1}
    write(folder, *(trial(f"t{i}") for i in range(5, 9)))
    assert [task.params["game"]["goal"]["phrasing"] for task in load(folder)] == phrasings[5:9]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "line 2"),
        (b"[1, 2]", "line 2"),
        (b'{"trial": "x"}', "line 2.*task_type"),
        (b"\xff\xfe", "line 2"),
        (b"", "line 2"),
        (trial(objects=[["Fork", 1]]), "line 2"),
        (trial(objects=[["Fork", "a", 0, 0]]), "line 2"),
        (trial(objects=[["Fork", 1e999, 0, 0]]), "line 2"),
        (trial(objects=[["Fork", 0, 0, 0]] * 3000), "line 2"),
        (trial(floor_plan="../../etc/passwd"), "line 2"),
        (trial(floor_plan="FloorPlan99"), "line 2.*FloorPlan99"),
        (b'{"trial": "' + b"x" * (1 << 20) + b'"}', "line 2.*longer"),
        (b"[" * 100_000, "line 2"),
    ],
)
def test_damaged_lines_are_told(folder: Path, line: bytes | dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=f"train.jsonl.gz, {told}"):
        load(write(folder, trial(), line, trial()))


def test_damaged_files_are_told(folder: Path) -> None:
    path = write(folder, *(trial(f"t{i}" + "x" * (i * 37 % 91)) for i in range(300))) / "train.jsonl.gz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for damaged in (whole[:middle], flipped, b"not gzip", whole[:-6]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"train\.jsonl\.gz, "):
            load(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"train\.jsonl\.gz"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[1]", "3", '{"Drawer|1|2": 0}', '{"Drawer|a|b|c": 0}', "{", "null"])
def test_damaged_layouts_are_told(folder: Path, text: str) -> None:
    (folder / "layouts" / "FloorPlan1-openable.json").write_text(text)
    with pytest.raises(DataError, match="FloorPlan1"):
        read_layout(folder / "layouts" / "FloorPlan1-openable.json")


def test_no_data_and_no_layouts_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALAESTRA_DATA", raising=False)
    monkeypatch.delenv("PALAESTRA_ALFWORLD_LAYOUTS", raising=False)
    with pytest.raises(DataError, match="PALAESTRA_DATA"):
        load_alfred("train")
    monkeypatch.setattr("palaestra.envs.alfworld.alfred.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"palaestra\[alfworld\]"):
        load_alfred("train", data=write(folder, trial()))
    with pytest.raises(DataError, match="nowhere"):
        load_alfred("train", data=folder, layouts=folder / "nowhere")


@pytest.fixture
def real(real_data: Path) -> Path:
    if not (real_data / "alfred").is_dir():
        pytest.skip("no ALFRED trials in the real data")
    if not os.environ.get("PALAESTRA_ALFWORLD_LAYOUTS") and find_spec("alfworld") is None:
        pytest.skip("no scenes: pip install 'palaestra[alfworld]', or set PALAESTRA_ALFWORLD_LAYOUTS")
    return real_data


@pytest.mark.integration
def test_real_trials_play(real: Path) -> None:
    async def solve(task: Any) -> float:
        async with HouseholdEnv() as env:
            await env.reset(task=task)
            while not (step := await env.step(await env.oracle())).terminated:
                assert not step.truncated
            return step.reward

    train, seen = (load_suite(f"alfworld/alfred:{split}", data=real) for split in ("train", "valid_seen"))
    assert (len(train), len(seen)) == (4099, 167)
    assert {task.kind for task in seen} == set(KINDS)
    assert len({task.name for task in train}) == len(train)
    assert not {task.name for task in train} & {task.name for task in seen}
    assert all(asyncio.run(solve(task)) == 1.0 for task in [*seen, *train[::40]])
