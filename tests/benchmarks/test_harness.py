"""What every benchmark ends with."""

import json

import pytest

from benchmarks._harness import conclude, status_bytes


@pytest.mark.parametrize(
    ("ratio", "at_most", "also", "passed"),
    [(2.0, False, True, True), (2.0, False, False, False), (0.5, False, True, False), (0.5, True, True, True)],
)
def test_passes_if_the_bar_is_reached_and_everything_else_holds(
    ratio: float, at_most: bool, also: bool, passed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conclude("x", ratio, 1.0, at_most=at_most, also=also, more=1.23456) is passed
    said = json.loads(capsys.readouterr().out)
    assert said == {"name": "x", "ratio": ratio, "bar": 1.0, "pass": passed, "more": 1.235}


def test_memory_of_this_process() -> None:
    assert 1 << 20 < status_bytes("VmRSS") <= status_bytes("VmHWM")
