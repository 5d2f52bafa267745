"""Models, checkpoints and files that are damaged or of something else, and losses that are not finite: one line each,
and what was there stays."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.command import at, complaint, write_recipe
from support.levers import register_levers, tiny_model
from support.tokens import tiny

from palaestra.cli.main import main
from palaestra.training.checkpoint import fingerprint, list_checkpoints, load_checkpoint
from palaestra.training.learner import Learner
from palaestra.training.metrics import read_metrics

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert main(["train", str(write_recipe(folder))]) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run to damage; its recipe names the model beside the original."""
    register_levers()
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def resume(run: Path) -> list[str]:
    return ["train", str(run), "budget.iterations=4", "--resume"]


def evaluate(run: Path) -> list[str]:
    return ["eval", "levers:test", "--agent", str(run), "--episodes", "2"]


def contents(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


# -- models ------------------------------------------------------------------------------------------------------------


def wider(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))
    (model / "SHA256SUMS").unlink()


def cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (model / "SHA256SUMS").unlink()


def flipped(model: Path) -> None:
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-50] ^= 1
    weights.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (wider, "model holds the weights of another model: "),
        (cut, "cannot load a model from "),
        (flipped, "model.safetensors is damaged (its SHA-256 is not the listed one); restore it"),
        (lambda model: (model / "config.json").write_text("{"), "config.json is damaged"),
        (lambda model: (model / "tokenizer.json").unlink(), "tokenizer.json"),
        (shutil.rmtree, "neither a model directory nor a finished run"),
    ],
)
def test_a_damaged_model_is_told(damage: Callable[[Path], None], told: str, run: Path, capsys: Capture) -> None:
    damage(run / "model")
    assert told in complaint(capsys, *evaluate(run))


def test_a_device_that_is_not_there(run: Path, capsys: Capture) -> None:
    said = complaint(capsys, *evaluate(run), "--device", "nowhere")
    assert said.startswith("palaestra: cannot use device 'nowhere': ")


def test_weights_of_another_run_are_refused_on_resume(run: Path, capsys: Capture) -> None:
    before = contents(run)
    base = run.parent / "other"
    tiny_model(width=32).save_pretrained(base)
    tiny().save_pretrained(base)
    assert "other settings (model.reference)" in complaint(capsys, *resume(run), f"model.reference={base}")
    assert contents(run) == before


# -- checkpoints and growing files -------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_passed_over(run: Path, capsys: Capture) -> None:
    (run / "checkpoints" / "000003" / "optimiser.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="trying the one before"):
        assert main(resume(run)) == 0


@pytest.mark.filterwarnings("ignore:.*trying the one before")
def test_where_all_are_damaged_the_run_stays_as_it_is(run: Path, capsys: Capture) -> None:
    for checkpoint in list_checkpoints(run / "checkpoints"):
        (checkpoint / "manifest.json").write_text("[]")
    metrics = (run / "metrics.jsonl").read_bytes()
    said = [line for line in complaint(capsys, *resume(run)).splitlines() if "all 2 checkpoints" in line]
    assert said[0].endswith("are damaged; begin anew with another out=")
    assert (run / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("file", ["metrics.jsonl", "trajectories/train.ptj"])
def test_files_shorter_than_the_checkpoint_knows(file: str, run: Path, capsys: Capture) -> None:
    content = (run / file).read_bytes()
    (run / file).write_bytes(content[: len(content) // 2])
    metrics = (run / "metrics.jsonl").read_bytes()
    assert f"run/{file}" in complaint(capsys, *resume(run))
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_a_kill_during_the_first_checkpoint_leaves_no_rows_twice(run: Path, capsys: Capture) -> None:
    for checkpoint in list_checkpoints(run / "checkpoints"):
        checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}.partial"))
    assert main(["train", str(run), "--resume"]) == 0
    assert [row["iteration"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"] == [0, 1, 2]


@pytest.mark.parametrize("file", ["eval/rl.json", "summary.json"])
def test_a_report_of_damaged_figures_is_refused(file: str, run: Path, capsys: Capture) -> None:
    (run / file).write_bytes(b"{\xff")
    page = (run / "report.html").read_bytes()
    assert f"run/{file} is not JSON" in complaint(capsys, "report", str(run))
    assert (run / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.jsonl", b'{"kind": \xff\n{"kind": "train"}\n'),
        ("trajectories/train.ptj", b"palaestra-trajectories 9\n"),
        ("trajectories/train.ptj", b"something else\n"),
    ],
)
def test_a_report_of_most_is_made_with_a_warning(file: str, content: bytes, run: Path) -> None:
    (run / file).write_bytes(content)
    with pytest.warns(UserWarning, match=f"run/{file}: .*; the report leaves"):
        assert main(["report", str(run)]) == 0


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name: [", b"- 1", b"name: 3"])
def test_a_damaged_recipe_is_told(content: bytes, run: Path, capsys: Capture) -> None:
    (run / "recipe.yaml").write_bytes(content)
    complaint(capsys, "train", str(run), "--resume")
    complaint(capsys, *evaluate(run))


# -- losses that are not finite ----------------------------------------------------------------------------------------


def test_after_a_loss_that_is_not_finite_a_lower_rate_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    with monkeypatch.context() as patch:
        at(patch, Learner, "update", lambda: poison(patch), 3)
        said = complaint(capsys, "train", str(recipe))
    mend = f"go on from it at a lower rate: palaestra train {run} optimiser.lr=0.001 --resume"
    assert said == f"palaestra: iteration 2: the loss is nan; the last checkpoint is untouched; {mend}"
    (newest,) = list_checkpoints(run / "checkpoints")[-1:]
    assert newest.name == "000002"
    assert all(value.isfinite().all() for value in load_checkpoint(newest).model.values())
    assert main(["train", str(run), "optimiser.lr=0.001", "--resume"]) == 0
    rates = [row["lr"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]
    assert rates == [0.01, 0.01, 0.001]
    assert "lr: 0.01\n" in (run / "recipe.000002.yaml").read_text()


def poison(patch: pytest.MonkeyPatch) -> None:
    """From here on every forward pass of the learner gives log-probs that are no numbers."""
    real = Learner._loss

    def loss(*args: object, **kwargs: object) -> torch.Tensor:
        return real(*args, **kwargs) * torch.nan  # type: ignore[arg-type]

    patch.setattr(Learner, "_loss", loss)


@pytest.mark.parametrize(("keep", "then"), [(2, "go on from 000001"), (1, "begin anew")])
def test_a_checkpoint_of_useless_weights_is_named(
    keep: int, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A rate far too high leaves weights that are finite, and saved, and beyond help: resuming fails every time."""
    recipe, run = write_recipe(tmp_path, f"checkpoint.keep={keep}", "evaluation.every=0"), tmp_path / "run"
    real = Learner.update

    def update(self: Learner, batch: object, moment: object) -> object:
        made = real(self, batch, moment)  # type: ignore[arg-type]
        if moment.iteration == 1:  # type: ignore[attr-defined]
            for parameter in self.policy.model.parameters():
                parameter.data.fill_(1e30)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", update)
        assert "iteration 2: " in complaint(capsys, "train", str(recipe))
    spoilt = run / "checkpoints" / "000002"
    for _ in range(2):
        said = complaint(capsys, "train", str(run), "--resume")
        mend = f"palaestra train {run} optimiser.lr=0.001 --resume"
        assert said.endswith(f"; its weights seem to be spoilt: delete {spoilt}, then {then}: {mend}")
    shutil.rmtree(spoilt)
    assert main(mend.split()[1:]) == 0
    assert [row["iteration"] for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"] == [0, 1, 2]


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    real = Learner.update

    def update(self: Learner, batch: object, moment: object) -> object:
        made = real(self, batch, moment)  # type: ignore[arg-type]
        if moment.iteration == 1:  # type: ignore[attr-defined]
            next(self.policy.model.parameters()).data[0, 0] = torch.inf
        return made

    monkeypatch.setattr(Learner, "update", update)
    said = complaint(capsys, "train", str(recipe))
    assert "iteration 1: " in said
    assert "is not finite after the update; the last checkpoint is untouched" in said
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["000001"]


def test_a_base_model_that_cannot_play_is_no_success_rate_of_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    recipe = write_recipe(tmp_path)
    broken = tiny_model()
    for parameter in broken.parameters():
        parameter.data.fill_(torch.nan)
    assert fingerprint(broken) != fingerprint(tiny_model())
    broken.save_pretrained(tmp_path / "base")
    assert "no episode of levers:test can be played: " in complaint(capsys, "train", str(recipe))
