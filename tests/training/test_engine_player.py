"""The player with an engine of its own: when it is handed weights, and what it starts again from."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import levers_recipe
from support.runs import prepared

from palaestra.agents.engines.torch_engine import TorchEngine
from palaestra.agents.models import LoadedModel
from palaestra.config import Recipe
from palaestra.training import engine_player
from palaestra.training.run import train

PLAIN = ["engine.kind=vllm", "evaluation.test_episodes=0", "evaluation.every=0"]


class Apart(TorchEngine):
    """Has weights of its own, and keeps which it was handed."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(copy.deepcopy(loaded.model), slots=16)
        self.handed: list[tuple[int, bytes]] = []

    async def update_weights(self, weights: Mapping[str, Any], version: int) -> None:
        await super().update_weights(weights, version)
        if weights:
            self.handed.append((version, fingerprint(weights)))


def fingerprint(weights: Mapping[str, torch.Tensor]) -> bytes:
    return b"".join(weights[name].detach().numpy().tobytes() for name in sorted(weights))


def test_every_update_is_handed_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Apart] = []

    async def start(recipe: Recipe, loaded: LoadedModel, *more: Any) -> Apart:
        started.append(Apart(loaded))
        return started[-1]

    monkeypatch.setattr(engine_player, "start_engine", start)
    result = train(levers_recipe(prepared(tmp_path), *PLAIN, "budget.iterations=3"))
    assert result.counters.iteration == 3
    (engine,) = started
    assert [version for version, _ in engine.handed] == [0, 1, 2]
    assert len({weights for _, weights in engine.handed}) == 3
