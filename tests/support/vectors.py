"""Reference numbers: files of cases, each with parameters, inputs and expected values, and how they are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Case = dict[str, Any]
Computation = Callable[[Case, Case], Case]
"""Parameters and inputs of a case → everything that it expects."""
FOLDER = Path(__file__).parents[1] / "training" / "vectors"
DERIVATIVES = ("dentropy", "dloss", "dtokenmean", "dL_", "dk")


def load(name: str) -> Case:
    """One file."""
    data: Case = json.loads((FOLDER / f"{name}.json").read_text())
    return data


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def numbered(names: list[str]) -> Tensor:
    return torch.tensor([sorted(set(names)).index(n) for n in names])


def leaf(values: Any) -> Tensor:
    return f64(values).requires_grad_()


def assert_same(actual: Any, expected: Any, tolerance: float, path: str) -> None:
    if isinstance(expected, dict):
        assert set(actual) == set(expected), path
        for key, value in expected.items():
            assert_same(actual[key], value, tolerance, f"{path}.{key}")
        return
    actual = actual.detach().tolist() if isinstance(actual, Tensor) else actual
    if isinstance(expected, list):
        assert len(actual) == len(expected), path
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, e, tolerance, f"{path}[{i}]")
    elif isinstance(expected, bool | str):
        assert (type(actual), actual) == (type(expected), expected), path
    else:
        assert float(actual) == pytest.approx(expected, rel=0, abs=tolerance), path


def check(data: Case, case: str, computations: Mapping[str, Computation]) -> None:
    """Every expected key of a case is computed and close."""
    (entry,) = [c for c in data["cases"] if c["name"] == case]
    assert case in computations, f"no computation for case {case}"
    actual = computations[case](entry["params"], entry["inputs"])
    assert set(actual) == set(entry["expected"]), "every expected key must be computed"
    for key, value in entry["expected"].items():
        tolerance = data["gradient_tolerance"] if key.startswith(DERIVATIVES) else data["tolerance"]
        assert_same(actual[key], value, tolerance, f"{case}.{key}")
