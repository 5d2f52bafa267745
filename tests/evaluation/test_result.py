from __future__ import annotations

import json
from pathlib import Path

import pytest

from palaestra.errors import DataError, PalaestraError
from palaestra.evaluation.intervals import wilson
from palaestra.evaluation.result import EvalResult
from palaestra.trajectories.record import Node, StepRecord, Trajectory


def episode(i: int, kind: str, success: bool, steps: int, status: str = "ok") -> Trajectory:
    records = [StepRecord(observation="o", action="a", reward=0.0, invalid=k == 0) for k in range(steps)]
    nodes = [Node(ids=[1, 2]), Node(ids=[3, 4, 5], sampled=True)]
    return Trajectory(
        id=str(i), env="e", task=f"t{i}", kind=kind, success=success, total_reward=float(success), steps=records,
        nodes=nodes, status=status,
    )  # fmt: skip


EPISODES = [episode(0, "heat", True, 4), episode(1, "cool", False, 10), episode(2, "heat", False, 0, "error")]


def test_summary() -> None:
    result = EvalResult.of(EPISODES, suite="s:test", agent="a", seconds=1.5, temperature=0.4)
    assert (result.suite, result.agent, result.n) == ("s:test", "a", 3)
    assert result.success == wilson(1, 3)
    assert result.reward == pytest.approx(1 / 3)
    assert result.length == pytest.approx(14 / 3)
    assert result.invalid_rate == pytest.approx(2 / 14)
    assert list(result.by_kind) == ["cool", "heat"]
    assert result.by_kind["heat"].success == wilson(1, 2)
    assert result.by_kind["heat"].length == 2
    assert result.statuses == {"error": 1, "ok": 2}
    assert (result.env_steps, result.tokens_generated) == (14, 9)


def test_of_nothing() -> None:
    result = EvalResult.of([], suite="s:test", agent="a")
    assert (result.n, result.reward, result.length, result.invalid_rate) == (0, 0, 0, 0)


def test_json_has_the_documented_shape() -> None:
    result = EvalResult.of(EPISODES, suite="s:test", agent="a")
    shape = json.loads(result.to_json())
    assert set(shape) == {
        "suite", "agent", "n", "success", "reward", "length", "invalid_rate", "by_kind", "statuses", "env_steps",
        "tokens_generated", "seconds", "temperature", "top_k", "top_p", "usage",
    }  # fmt: skip
    assert set(shape["success"]) == {"value", "n", "low", "high"}
    assert set(shape["by_kind"]["heat"]) == {"success", "length", "reward"}
    assert EvalResult.from_json(result.to_json()) == result


def test_save_and_load(tmp_path: Path) -> None:
    result = EvalResult.of(EPISODES, suite="s:test", agent="a")
    path = tmp_path / "eval" / "x.json"
    result.save(path)
    result.save(path)
    assert EvalResult.load(path) == result
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match="cannot read"):
        EvalResult.load(path)
    path.write_text('{"suite": 3}')
    with pytest.raises(DataError, match=r"x\.json: not an evaluation result"):
        EvalResult.load(path)
    with pytest.raises(PalaestraError, match="cannot write"):
        EvalResult.of([], suite="s", agent="a").save(path / "below" / "a-file.json")
