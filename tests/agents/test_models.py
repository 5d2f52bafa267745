import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

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


@pytest.mark.parametrize("kind", ["little", "llama"])
def test_code_of_a_directory_is_never_run(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(saved, folder)
    named = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Words", None]}
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "auto_map": named, "model_type": kind}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if kind == "llama":
        assert_little(load_model(folder))  # transformers' own class does
    else:
        with pytest.raises(CheckpointError, match=r"names Python code of its own \(auto_map\), which is never run"):
            load_model(folder)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_never_read(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(saved, folder)
    weights = LlamaForCausalLM.from_pretrained(saved).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    assert_little(load_model(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin only, a pickle, which is never read"):
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


def write_gguf(path: Path) -> None:
    """A Llama of one layer, its embedding packed in blocks of 8 bits, with a tokenizer of letters."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    width, letters = 32, ["<end>", *sorted(bytes_to_unicode().values()), "oo"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("little")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_merges(["o o"])
    writer.add_eos_token_id(0)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), (32, 32)) | dict.fromkeys(
        ("attn_norm", "ffn_norm"), (32,)
    )
    drawn = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", drawn.normal(size=shape).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    packing = gguf.GGMLQuantizationType.Q8_0
    table = gguf.quantize(drawn.normal(size=(len(letters), width)).astype(np.float32), packing)
    writer.add_tensor("token_embd.weight", table, raw_dtype=packing)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_becomes_a_model_that_can_be_trained_and_saved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "little.gguf")
    loaded = load_model(tmp_path / "little.gguf")
    shown = capfd.readouterr()
    assert (loaded.name, shown.err, shown.out) == ("little", "", "")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    ids = torch.tensor([loaded.tokenizer("look")["input_ids"]])
    assert ids.shape == (1, 3)
    loss = loaded.model(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loaded.model.parameters())
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.tokenizer("look")["input_ids"] == ids[0].tolist()
    torch.testing.assert_close(again.model(ids, labels=ids).loss, loss, rtol=0, atol=0)


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
