import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palaestra import errors
from palaestra.agents import models
from palaestra.agents.models import SHIPPED, LoadedModel, load_model, resolve_model, verify_hashes
from palaestra.errors import CheckpointError, ConfigError, MissingExtraError, UnknownNameError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "little"
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=4, **shape)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "go": 1, "to": 2, "fridge": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return folder


def assert_little(loaded: LoadedModel) -> None:
    assert loaded.tokenizer("go to fridge")["input_ids"] == [1, 2, 3]
    assert loaded.model(torch.tensor([[1]])).logits.shape == (1, 1, 4)
    assert not loaded.model.training


def test_a_directory(saved: Path) -> None:
    loaded = load_model(saved, dtype="bfloat16")
    assert_little(loaded)
    assert (loaded.name, loaded.model.dtype) == ("little", torch.bfloat16)


def test_a_run_directory(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "my-run" / "model")
    loaded = load_model(tmp_path / "my-run")
    assert_little(loaded)
    assert loaded.name == "my-run"


@pytest.mark.skipif(not (SHIPPED["palaestra-tiny"] / "SHA256SUMS").exists(), reason="palaestra-tiny is not here yet")
def test_the_shipped_model() -> None:
    loaded = load_model("palaestra-tiny")
    assert 1e6 <= sum(p.numel() for p in loaded.model.parameters()) <= 4e6
    assert loaded.tokenizer.chat_template
    assert len(loaded.tokenizer) <= loaded.model.config.vocab_size


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="palaestra-tiny"):
        load_model("palaestra-tyni")


def test_a_damaged_shipped_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'{}').hexdigest()}  config.json\n")
    verify_hashes(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    monkeypatch.setitem(models.SHIPPED, "palaestra-tiny", tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json is damaged"):
        load_model("palaestra-tiny")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="incomplete"):
        verify_hashes(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 1500])
def test_truncated_weights(saved: Path, tmp_path: Path, keep: int) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot load a model from"):
        load_model(folder)


def test_missing_weights(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(saved, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 .* model\.norm\.weight"):
        load_model(folder)


def test_what_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve_model(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a model"):
        resolve_model(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="dtype"):
        load_model(tmp_path, dtype="int3")


def test_a_damaged_gguf(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CheckpointError, match=r"bad\.gguf"):
        load_model(tmp_path / "bad.gguf")


@pytest.mark.parametrize(("module", "extra"), [("torch", "train"), ("gguf", "gguf")])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    real = errors.require

    def without(name: str, wanted: str) -> object:
        if name == module:
            raise MissingExtraError(name, wanted)
        return real(name, wanted)

    monkeypatch.setattr(models, "require", without)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(MissingExtraError, match=rf"palaestra\[{extra}\]"):
        load_model(tmp_path / "model.gguf")
