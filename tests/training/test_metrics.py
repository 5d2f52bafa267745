import json
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palaestra.errors import DataError, PalaestraError
from palaestra.training.metrics import MetricsWriter, finite, read_metrics, scalars


def test_rows_are_json_lines_with_null_for_what_json_does_not_know(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write({"kind": "train", "loss": math.nan, "by_turn": [1.0, math.inf], "n": {"x": -math.inf, "ok": True}})
    text = (tmp_path / "m.jsonl").read_text()
    assert json.loads(text) == {"kind": "train", "loss": None, "by_turn": [1.0, None], "n": {"x": None, "ok": True}}
    assert list(read_metrics(tmp_path / "m.jsonl")) == [json.loads(text)]
    assert finite((1.5, "a")) == [1.5, "a"]


def test_truncation_goes_back_to_an_offset(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write({"iteration": 0})
        offset = writer.offset
        writer.write({"iteration": 1})
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.truncate_to(offset)
        writer.write({"iteration": 2})
        with pytest.raises(DataError, match="fewer than the 9999"):
            writer.truncate_to(9999)
    assert [row["iteration"] for row in read_metrics(tmp_path / "m.jsonl")] == [0, 2]


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert list(read_metrics(path)) == [{"a": 1}]
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        list(read_metrics(path))
    with pytest.raises(DataError, match="cannot read metrics"):
        list(read_metrics(tmp_path / "none"))


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        MetricsWriter("/dev/full") as writer,
        pytest.raises(PalaestraError, match=r"cannot write /dev/full: No space left on device"),
    ):
        writer.write({"a": 1})


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PalaestraError, match=r"cannot write .*: Not a directory"):
        MetricsWriter(tmp_path / "file" / "m.jsonl")


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsWriter(tmp_path / "m.jsonl", tensorboard=tmp_path / "board") as writer:
        writer.write({"kind": "train", "iteration": 3, "loss": 0.5, "statuses": {"ok": 4}, "none": None})
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("train/statuses/ok")] == [(3, 4.0)]


def test_tensorboard_has_every_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def rows(*iterations: int) -> Iterator[dict[str, Any]]:
        return ({"kind": "train", "iteration": i, "loss": i / 2} for i in iterations)

    path, board = tmp_path / "m.jsonl", tmp_path / "board"
    with MetricsWriter(path, tensorboard=board) as writer:
        for row in rows(0, 1):
            writer.write(row)
        offset = writer.offset
        for row in rows(2, 3):
            writer.write(row)
    with MetricsWriter(path, tensorboard=board) as writer:
        writer.truncate_to(offset)
        for row in rows(2, 3, 4):
            writer.write(row)
    events = EventAccumulator(str(board), purge_orphaned_data=True)
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(i, i / 2) for i in range(5)]


def test_a_first_row_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            with pytest.raises(PalaestraError, match="cannot write"):
                writer.write({"iteration": 0, "success": 0.5})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        writer.write({"iteration": 1})
    assert list(read_metrics(tmp_path / "m.jsonl")) == [{"iteration": 1}]


def test_scalars_are_finite_numbers() -> None:
    assert dict(scalars({"a": 1, "b": {"c": 2.5, "d": math.nan}, "e": "x", "f": None})) == {"a": 1.0, "b/c": 2.5}
