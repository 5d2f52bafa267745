import hashlib
import json
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.levers import tiny_model

from palaestra.config import OptimiserConfig
from palaestra.errors import CheckpointError
from palaestra.training.checkpoint import (
    Checkpoint,
    fingerprint,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    load_weights,
    save_checkpoint,
)
from palaestra.training.optimiser import Optimiser

FILES = ["model.safetensors", "optimiser.safetensors", "state.json", "manifest.json"]


def checkpoint(iteration: int, seed: int = 0) -> Checkpoint:
    model = tiny_model(seed)
    optimiser = Optimiser(model, OptimiserConfig())
    model(torch.tensor([[1, 2, 3]])).logits.square().mean().backward()
    optimiser.step(1e-3)
    return Checkpoint(iteration, dict(model.named_parameters()), optimiser.state_tensors(), {"x": 0.1})


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Writes beyond `limit` bytes fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = checkpoint(7)
    path = save_checkpoint(tmp_path, saved)
    assert path == tmp_path / "000007"
    assert sorted(os.listdir(path)) == sorted(FILES)
    loaded = load_checkpoint(path)
    assert loaded.iteration == 7
    assert loaded.state == {"x": 0.1, "iteration": 7}
    for before, after in ((saved.model, loaded.model), (saved.optimiser, loaded.optimiser)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    model = tiny_model(1)
    load_weights(model, loaded.model)
    assert fingerprint(model) != fingerprint(tiny_model(1))
    assert all(torch.equal(p, saved.model[name]) for name, p in model.named_parameters())


def test_the_optimiser_goes_on_where_it_was() -> None:
    def steps(optimiser: Optimiser, model: torch.nn.Module, count: int) -> None:
        for _ in range(count):
            model(torch.tensor([[1, 2, 3]])).logits.square().mean().backward()
            optimiser.step(1e-3)

    straight, resumed = tiny_model(), tiny_model()
    one = Optimiser(straight, OptimiserConfig(weight_decay=0.1))
    steps(one, straight, 5)
    first = Optimiser(resumed, OptimiserConfig(weight_decay=0.1))
    assert first.state_tensors() == {}
    steps(first, resumed, 2)
    second = Optimiser(resumed, OptimiserConfig(weight_decay=0.1))
    second.load_state_tensors(first.state_tensors())
    steps(second, resumed, 3)
    assert fingerprint(straight) == fingerprint(resumed)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for iteration in (1, 2, 30):
        save_checkpoint(tmp_path, checkpoint(iteration), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000002", "000030"]
    assert load_latest(tmp_path / "none") is None
    latest = load_latest(tmp_path)
    assert latest is not None
    assert latest.iteration == 30


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty"])
def test_damage_is_found_and_the_one_before_taken(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    file = save_checkpoint(tmp_path, checkpoint(2)) / name
    data = bytearray(file.read_bytes())
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "empty":
            file.write_bytes(b"")
        case "flipped":
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
    with pytest.raises(CheckpointError, match="000002"):
        load_checkpoint(tmp_path / "000002")
    with pytest.warns(UserWarning, match="trying the one before"):
        latest = load_latest(tmp_path)
    assert latest is not None
    assert latest.iteration == 1


@pytest.mark.parametrize(("name", "content"), [("manifest.json", '{"format": 1}'), ("state.json", "{}")])
def test_a_checkpoint_that_lacks_a_key_is_damaged(tmp_path: Path, name: str, content: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1))
    (path / name).write_text(content)
    if name != "manifest.json":
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][name] = hashlib.sha256(content.encode()).hexdigest()
        (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="000001 is damaged"):
        load_checkpoint(path)


def test_an_old_one_that_cannot_be_removed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    real = shutil.rmtree

    def rmtree(path: Path, **options: Any) -> None:
        if path.name == "000001":
            raise PermissionError(1, "Operation not permitted")
        real(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.warns(UserWarning, match="cannot remove the old checkpoint .*000001: Operation not permitted"):
        saved = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert load_checkpoint(saved).iteration == 2


def test_if_all_are_damaged_that_is_said(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, checkpoint(1)) / "model.safetensors").write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match=r"all 1 checkpoints in .* are damaged"),
    ):
        load_latest(tmp_path)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "boom"),)

    folder = save_checkpoint(tmp_path / "c", checkpoint(1))
    (folder / "optimiser.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)
    assert not (tmp_path / "boom").exists()


def test_a_kill_while_writing_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    partial = tmp_path / ".000002.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000001"]
    save_checkpoint(tmp_path, checkpoint(2))
    assert not partial.exists()


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    with file_size_limit(2000), pytest.raises(CheckpointError, match="earlier checkpoints are untouched"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert os.listdir(tmp_path) == ["000001"]
    assert load_checkpoint(tmp_path / "000001").iteration == 1


def test_weights_of_another_model_are_refused_and_nothing_is_changed() -> None:
    model = tiny_model()
    before = fingerprint(model)
    wider = dict(tiny_model(width=32).named_parameters())
    with pytest.raises(CheckpointError, match=r"the checkpoint is of another model: .* has shape"):
        load_weights(model, wider)
    fewer = dict(list(model.named_parameters())[1:])
    with pytest.raises(CheckpointError, match=r"only the model has 'model.embed_tokens.weight'"):
        load_weights(model, fewer)
    with pytest.raises(CheckpointError, match=r"only run 1 has 'extra'"):
        load_weights(model, {**dict(model.named_parameters()), "extra": torch.zeros(1)}, source="run 1")
    assert fingerprint(model) == before
    with pytest.raises(CheckpointError, match="optimiser state is of another model"):
        Optimiser(model, OptimiserConfig()).load_state_tensors(
            checkpoint(1).optimiser | {"extra.exp_avg": wider["model.norm.weight"]}
        )
