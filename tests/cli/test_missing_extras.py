"""Where an optional part is not installed the command line names the extra, and what needs no such part works."""

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = Path(__file__).parents[1] / "support" / "absent.py"
HEAVY = "torch,transformers,safetensors,tokenizers,tensorboard,psutil,gymnasium,gguf,accelerate,alfworld"
EVAL = ("eval", "alfworld:test", "--episodes", "2", "--agent")


def run(absent: str, *argv: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ABSENT), absent, *argv]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("absent", "extra", "argv"),
    [
        ("torch", "train", ("train", "demo", "--out", "run")),
        ("torch", "train", ("demo", "--out", "run")),
        ("transformers", "train", ("train", "demo", "--out", "run")),
        ("safetensors", "train", (*EVAL, "palaestra-tiny")),
        ("tokenizers", "train", (*EVAL, "palaestra-tiny")),
        ("psutil", "train", ("train", "demo", "--out", "run")),
        ("tensorboard", "train", ("train", "demo", "tensorboard=true", "--out", "run")),
        ("aiohttp", "openai", (*EVAL, "openai:m@http://127.0.0.1:9/v1")),
        ("gguf", "gguf", (*EVAL, "model.gguf")),
        ("accelerate", "gguf", (*EVAL, "model.gguf")),
        ("gymnasium", "gymnasium", ("check", "a/B-v0", "--import", "uses_gymnasium.py")),
        ("alfworld", "alfworld", ("eval", "alfworld/alfred:train", "--agent", "oracle", "--param", "data=data")),
    ],
)
def test_the_extra_is_named(
    absent: str, extra: str, argv: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PALAESTRA_ALFWORLD_LAYOUTS", raising=False)
    (tmp_path / "model.gguf").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl.gz").touch()
    (tmp_path / "uses_gymnasium.py").write_text(
        "import palaestra\npalaestra.as_gymnasium(palaestra.make('alfworld/Household-v0'))\n"
    )
    (tmp_path / "run").mkdir()
    done = run(absent, *argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"palaestra: {absent} is not installed; run: pip install 'palaestra[{extra}]'\n"
    assert list((tmp_path / "run").iterdir()) == [], "nothing was begun, or moved aside"
    assert not (tmp_path / "run.1").exists()


@pytest.mark.parametrize(
    "argv", [(*EVAL, "oracle", "--out", "out"), ("check", "alfworld/Household-v0"), ("envs",), ("report", "run")]
)
def test_what_needs_no_extra_works_without_any(argv: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "train", "iteration": 0, "success": 0.5}\n')
    done = run(HEAVY, *argv, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
